"""A worker: one task at a time in the main thread; the control thread speaks with the master.

A worker of a revision that is to be deployed may get a plan's questions instead of a task.

Runs in a child of the zygote. The slot is made before the worker says that it is idle; an attempt's
END is in the slot before the worker tells the master of it (and is synced if it cannot tell); the
slot is reset only once the master has noted that end. A worker whose master is lost goes on with
its task and looks for the next master; if the task ends before there is one, END stays in the slot
and the worker exits. It drops a task that it has not begun.
"""

from __future__ import annotations

import contextvars
import errno
import faulthandler
import gc
import os
import signal
import sys
import threading
from contextlib import suppress
from typing import Any, NoReturn

from taskd import tasks
from taskd.api.interrupt import Interrupted, Yielded
from taskd.errors import ProtocolError
from taskd.model.task import COMMAND
from taskd.posix import cgroup, files, limits, mark, native, process, title, tree
from taskd.protocol import data
from taskd.protocol.boot import Boot
from taskd.protocol.saved import Kind, Outcome, Saved
from taskd.record import Record
from taskd.slot.writer import SlotFull, SlotWriter
from taskd.worker import exiting, hooks, output, plan
from taskd.worker.attempt import Ending, left, run_attempt, unfit
from taskd.worker.channel import Channel
from taskd.worker.control import Control, Order, Questions
from taskd.worker.eventloop import EventLoop
from taskd.worker.loglimit import LogLimit
from taskd.worker.slot_recorder import SlotRecorder
from taskd.worker.surroundings import Surroundings
from taskd.worker.task_environment import task_environment

NEEDED = 16
"""Descriptors that a worker must be able to open to run another task."""

TRIES = 3
"""Times that a worker without descriptors tries to begin a task, a second apart."""


class Worker(Record):
    """What all attempts of this process share.

    ``spared``: processes that the app started at import (in a worker that was not forked), and in
    ``on_worker_start``.
    ``before``: this process as it was before any task. ``loop``: of its async tasks.
    """

    boot: Boot
    control: Control
    slot: SlotWriter
    limit: LogLimit
    spared: frozenset[int]
    before: Surroundings
    loop: EventLoop


def run_worker(boot: Boot, worker: bytes) -> NoReturn:
    """Run tasks until retired or the master is lost; ends the process."""
    try:
        _fresh_start()
        title.show(title.WORKER, boot.revision)
        who = process.identity()
        tag = mark.wear(worker)
        spared = frozenset(tree.children())
        slot = SlotWriter.create(boot.slots, worker, who, boot.revision, boot.id, tag)
    except (SlotFull, OSError) as error:
        _give_up(boot, worker, f"cannot make its slot: {error}")
    try:
        channel = Channel.connect(boot.socket)
    except OSError:
        slot.remove()  # the master is gone since the fork: no master knows this worker
        output.leave(0)
    try:
        control = Control(channel, slot, boot.socket, boot.orphan_grace)
        control.greet(worker, who, slot.name, boot.ungrouped)
        control.start()
        hooks.worker_starts()
        spared |= frozenset(tree.children())
        limit = LogLimit()
        loop = EventLoop()
        before = Surroundings(
            lambda: {channel.fileno(), *loop.descriptors},  # another after a crash of the master
            keeps_connections=bool((boot.app or {}).get("keep_connections")),
        )
    except (OSError, RuntimeError) as error:  # no descriptor, or no thread
        with suppress(OSError):  # else the master's sweep removes it
            slot.remove()
        _give_up(boot, worker, f"cannot begin: {error}")
    _serve(Worker(boot, control, slot, limit, spared, before, loop))
    title.show(title.WORKER, f"{boot.revision} leaving")
    exiting.run_handlers()
    _drop(slot, control)
    output.leave(0)


def _drop(slot: SlotWriter, control: Control) -> None:
    """Remove the slot of a retired worker. That of another one stays: the next master sees in it
    that no task had begun."""
    if control.is_retired:
        with suppress(OSError):
            slot.remove()


def _give_up(boot: Boot, worker: bytes, why: str) -> NoReturn:
    """End a worker that lacks what it needs to run a task; the next one may have it. The reason
    goes to the master or, without a connection, to the daemon's log."""
    try:
        channel = Channel.connect(boot.socket)
        channel.send({"type": "unready", "worker": worker, "pid": os.getpid(), "message": why})
    except OSError:
        with suppress(OSError):
            os.write(2, f"taskd worker: {why}\n".encode())
    output.leave(os.EX_TEMPFAIL)


def _fresh_start() -> None:
    """Undo what the zygote has set up for itself and a task must not inherit. A crash by a signal
    (SIGSEGV, SIGABRT, SIGBUS, SIGFPE, SIGILL) leaves the Python frames of all threads on
    descriptor 2, and then ends the process as before."""
    process.become_subreaper()
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        native.handle_signal(number, signal.SIG_DFL)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        native.handle_signal(number, signal.SIG_IGN)  # as Python has it: an exception, not a death
    faulthandler.disable()  # if the app's import enabled it, it lost its handlers just now
    faulthandler.enable(2)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _serve(worker: Worker) -> None:
    """Run tasks and answer plans until there is no further order."""
    boot, control, slot = worker.boot, worker.control, worker.slot
    reusable = True
    control.idle(reusable)
    while (order := control.next_order()) is not None:
        if isinstance(order, Questions):
            answer = plan.answer(order.path)
            reusable = reusable and answer.reusable
            control.planned(answer.fields)
            control.idle(reusable)
            continue
        title.show(title.WORKER, f"{boot.revision} task {order.task} {order.name}")
        reusable = _attempt(worker, order)
        if not control.wait_until_noted():
            slot.sync()
            return  # END stays in the slot for the next master, also over a power cut
        slot.reset()
        control.idle(reusable)
        title.show(title.WORKER, boot.revision)


def _attempt(worker: Worker, order: Order) -> bool:
    """Run one attempt to its END record. Returns whether this process may run another.

    An attempt of which a process or thread still runs, or that still keeps a lock or an address
    from others, is over only with this process: its END is left in the slot, and the master reads
    it there once this process and its tree are gone.
    """
    boot, control, slot, before = worker.boot, worker.control, worker.slot, worker.before
    registered = tasks.registered[order.name]
    began = native.monotonic()
    begun = {
        "task": order.task,
        "attempt": order.attempt,
        "name": order.name,
        "version": registered.version,
        "at": order.at,
        "begun": began,
    }
    recorder = SlotRecorder(control, slot, order, boot.revision)
    around = hooks.AroundTask(recorder.id, order.name, order.attempt, boot.revision)
    recorder.save(lambda: slot.append(Kind.BEGIN, begun), can_leave=False)
    threads = threading.active_count()
    left_behind: int | None = 0
    offset = None
    try:
        control.heed_cancel()
        written = _prepare(order, recorder)
    except Interrupted as interrupt:
        ending = left(interrupt, recorder, registered.version)
    else:
        environment = task_environment(
            order.task, order.attempt, boot.revision, order.scratch, boot.sockets
        )
        with worker.limit.on(order.log, order.log_limit), written, environment:
            context = contextvars.copy_context()
            ending = context.run(_run, worker, registered, order, recorder, around)
            _log_failure(order, ending.error if ending.outcome is Outcome.FAILED else None)
            if around.is_due:  # END goes first: whatever the hooks do, the outcome stands
                offset = _record(slot, recorder, order, ending, native.monotonic() - began)
                context.run(around.end, ending.outcome.value, ending.exception)
            ending = ending._replace(exception=None)
            gc.collect()  # the task's objects end here, in reference cycles too, by code of theirs
            before.calm()  # once more: objects of the task were deleted, which runs its code
            left_behind = _kill_tree(worker.spared, boot.group)
    if left_behind is not None:
        _leave_nothing_empty(order)
    if offset is None:
        offset = _record(slot, recorder, order, ending, native.monotonic() - began)
    is_over = left_behind is not None and threading.active_count() <= threads + around.threads
    is_sound = not left_behind and not worker.loop.is_spoilt and limits.can_open(NEEDED)
    reusable = is_over and is_sound and _is_as_before(before, order)
    if not is_over or (not reusable and before.keeps_from_others()):
        slot.sync()
        exiting.leave()
    control.ended(order, offset, reusable)
    return reusable


def _leave_nothing_empty(order: Order) -> None:
    """Remove the task's log and scratch directory if nothing was written. The next attempt makes
    them again; it cannot have begun yet."""
    with suppress(OSError):
        os.rmdir(order.scratch)
    with suppress(OSError):
        if os.stat(order.log, follow_symlinks=False).st_size == 0:
            os.unlink(order.log)


def _log_failure(order: Order, error: dict[str, str] | None) -> None:
    """Write the traceback of a failed task, free of its secrets, to the end of its log. A command's
    own output says why it failed."""
    if error is None or order.name == COMMAND:
        return
    output.flush()
    with suppress(OSError):  # it is in the store as well
        log = output.open_log(order.log)
        try:
            os.write(log, error["traceback"].encode())
        finally:
            native.close(log)


def _is_as_before(before: Surroundings, order: Order) -> bool:
    """Whether this process is as it was before its first task; the daemon's log says if not."""
    changed = before.differences()
    if changed:
        why = f"task {order.task} has changed its process: {', '.join(changed)}"
        with suppress(OSError):
            os.write(2, f"taskd worker: {why}; it is not used again\n".encode())
    return not changed


def _kill_tree(spared: frozenset[int], group: str) -> int | None:
    """Kill the processes that the task has left; returns how many. None if some may live on: they
    have become the zygote's children, the task has hidden /proc or left no descriptor, or the
    worker's control group holds a process that is no descendant. This process must end then, and
    the zygote kills them."""
    try:
        with limits.every_descriptor():
            killed = tree.kill_all(spared, _close_trackers)
            alone = not group or cgroup.holds_only(group, spared | {os.getpid()})
            return killed if alone and process.is_subreaper() else None
    except Exception:
        return None


def _close_trackers() -> None:
    """End the resource trackers that the task has started (multiprocessing's, or a library's own).
    A tracker cleans up when the last process closes its pipe; Python starts another one when it
    needs it again."""
    ours = tree.children()
    for name, module in list(sys.modules.items()):
        if name.rpartition(".")[2] != "resource_tracker":
            continue
        tracker: Any = getattr(module, "_resource_tracker", None)
        if not (hasattr(tracker, "_fd") and hasattr(tracker, "_pid")):
            continue
        if tracker._pid in ours and isinstance(tracker._fd, int):
            with suppress(OSError):  # the task has closed it
                native.close(tracker._fd)
            tracker._fd = tracker._pid = None


def _prepare(order: Order, recorder: SlotRecorder) -> output.Output:
    """Make the task's scratch directory and open its log, as soon as both can be done. None of the
    task's code has run, and none of its retries is used. Raises Interrupted.

    Where this process alone is out of descriptors (EMFILE): Yielded after TRIES, since another
    worker may have some."""
    tries = 0

    def make() -> output.Output:
        nonlocal tries
        tries += 1
        try:
            files.make_own_directory(order.scratch)
            return output.Output(order.log)
        except OSError as error:
            if error.errno == errno.EMFILE and tries > TRIES:
                raise Yielded(f"its worker could not begin: {error.strerror}") from None
            raise

    return recorder.retry("cannot begin yet", make, (OSError,))


def _run(
    worker: Worker,
    registered: Any,
    order: Order,
    recorder: SlotRecorder,
    around: hooks.AroundTask,
) -> Ending:
    try:
        kept = None if order.saved is None else Saved.decode(order.saved)
        args = data.decode(order.args)
    except ProtocolError as error:  # of a newer taskd, say: another revision's may read it
        return unfit(Saved(registered.version), f"what it has saved cannot be read: {error}")
    return run_attempt(
        registered,
        args,
        kept,
        recorder,
        submitted_at=order.version,
        failures=order.failures,
        begin=around.begin,
        calm=worker.before.calm,
        loop=worker.loop,
    )


def _record(
    slot: SlotWriter, recorder: SlotRecorder, order: Order, ending: Ending, ran: float
) -> int:
    """Write END, and the state that the next attempt continues from, to disk; returns END's
    offset."""
    fields: dict[str, Any] = {
        "task": order.task,
        "attempt": order.attempt,
        "outcome": ending.outcome.value,
        "progressed": ending.progressed,
        "version": ending.saved.version,
        "ran": ran,
    }
    if ending.outcome is not Outcome.SUCCEEDED and ending.progressed:
        fields["snapshot"] = recorder.save(
            lambda: slot.snapshot(ending.saved.encode()), can_leave=False
        )
    if ending.unfit:
        fields["unfit"] = True
    told = {name: getattr(ending, name) for name in ("result", "error", "reason", "wake", "retry")}
    fields |= {name: value for name, value in told.items() if value is not None}
    return recorder.save(lambda: slot.append_end(fields), can_leave=False)
