"""A worker: one task at a time in the main thread, a control thread that speaks with the master.

A worker of a revision that is to be deployed may get a plan's questions in place of a task.

Runs in a child of the zygote. Its slot is there before it is announced idle; an attempt's END
stands in the slot before the master hears of it (and is synced where the master does not); the
slot is reset only once the master has noted that end. A worker whose master is lost goes on with
its task and looks for the next master; if it finishes before there is one it leaves END in its slot
and exits. A task that it had not begun it drops.
"""

from __future__ import annotations

import contextvars
import errno
import gc
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from taskd import tasks
from taskd.api.interrupt import Interrupted, Yielded
from taskd.errors import ProtocolError
from taskd.posix import cgroup, files, limits, mark, native, process, title, tree
from taskd.protocol import data
from taskd.protocol.boot import Boot
from taskd.protocol.saved import Kind, Outcome, Saved
from taskd.slot.writer import SlotFull, SlotWriter
from taskd.worker import exiting, output, plan, resource_trackers, tracebacks
from taskd.worker.attempt import Ending, left, run_attempt, unfit
from taskd.worker.channel import Channel
from taskd.worker.control import Control, Order, Questions
from taskd.worker.eventloop import EventLoop
from taskd.worker.loglimit import LogLimit
from taskd.worker.slot_recorder import SlotRecorder
from taskd.worker.surroundings import Surroundings

NEEDED = 16
"""Descriptors that a worker must be able to have to run another task; one that has used them up
would wait for them for ever."""

TRIES = 3
"""Times that a worker without descriptors tries to begin a task, a second apart."""


def run_worker(boot: Boot, worker: bytes) -> NoReturn:
    """Be that worker until retired or the master is lost; ends the process."""
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
        slot.remove()  # the master went away between the fork and now: nobody knows us
        output.leave(0)
    try:
        control = Control(channel, slot, boot.socket, boot.orphan_grace)
        control.greet(worker, who, slot.name, boot.ungrouped)
        control.start()
        limit = LogLimit()
        limit.start()
        loop = EventLoop()
        before = Surroundings(
            lambda: {channel.fileno(), *loop.descriptors},  # another after a crash of the master
            keeps_connections=bool((boot.app or {}).get("keep_connections")),
        )
    except (OSError, RuntimeError) as error:  # of descriptors, or of threads
        with suppress(OSError):  # a sweep does it
            slot.remove()
        _give_up(boot, worker, f"cannot begin: {error}")
    _serve(boot, control, slot, limit, spared, before, loop)
    title.show(title.WORKER, f"{boot.revision} leaving")
    exiting.run_handlers()
    _drop(slot, control)
    output.leave(0)


def _drop(slot: SlotWriter, control: Control) -> None:
    """Of a worker that is not retired the slot stays: a master that finds it sees that nothing had
    begun."""
    if control.is_retired:
        with suppress(OSError):
            slot.remove()


def _give_up(boot: Boot, worker: bytes, why: str) -> NoReturn:
    """Nothing can be run here; the next one may find what this one lacks. The master is told why,
    or its log where there is no way to it: the exit status alone says little."""
    try:
        channel = Channel.connect(boot.socket)
        channel.send({"type": "unready", "worker": worker, "pid": os.getpid(), "message": why})
    except OSError:
        with suppress(OSError):
            os.write(2, f"taskd worker: {why}\n".encode())
    output.leave(os.EX_TEMPFAIL)


def _fresh_start() -> None:
    """Undo what the zygote needed and a task must not inherit."""
    process.become_subreaper()
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        native.handle_signal(number, signal.SIG_DFL)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        native.handle_signal(number, signal.SIG_IGN)  # as Python has it: an exception, not a death
    tracebacks.of_crashes()
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _serve(
    boot: Boot,
    control: Control,
    slot: SlotWriter,
    limit: LogLimit,
    spared: frozenset[int],
    before: Surroundings,
    loop: EventLoop,
) -> None:
    """``spared``: processes that the app started at import (in a worker that was not forked).
    ``before``: what this process is like before any task. ``loop``: of its async tasks."""
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
        reusable = _attempt(boot, control, slot, limit, order, spared, before, loop)
        title.show(title.WORKER, boot.revision)
        if not control.wait_until_noted():
            slot.sync()
            return  # END stays in the slot for the next master, also over a power cut
        slot.reset()
        control.idle(reusable)


def _attempt(
    boot: Boot,
    control: Control,
    slot: SlotWriter,
    limit: LogLimit,
    order: Order,
    spared: frozenset[int],
    before: Surroundings,
    loop: EventLoop,
) -> bool:
    """Run one attempt to its END record. Returns whether this process may run another.

    An attempt of which anything still runs is over only with this process: its END is left in the
    slot, and read there once we and our tree are gone.
    """
    registered = tasks.registered[order.name]
    begun = {
        "task": order.task,
        "attempt": order.attempt,
        "name": order.name,
        "version": registered.version,
        "at": order.at,
    }
    recorder = SlotRecorder(control, slot, order, boot.revision)
    control.insist(lambda: slot.append(Kind.BEGIN, begun))
    threads = threading.active_count()
    left_behind: int | None = 0
    try:
        control.heed_cancel()
        written = _prepare(order, recorder)
    except Interrupted as interrupt:
        ending = left(interrupt, recorder, registered.version)
    else:
        with limit.on(order.log, order.log_limit), written, _environment(boot, order):
            context = contextvars.copy_context()
            ending = context.run(_run, registered, order, recorder, before.calm, loop)
            tracebacks.of_failure(order, ending.error)
            before.calm()  # once more: what the task left in memory was deleted by code of its own
            left_behind = _kill_tree(spared, boot.group)
    offset = _record(slot, control, order, ending)
    if left_behind is None or threading.active_count() > threads:
        slot.sync()
        exiting.leave()
    control.ended(order, offset)
    if left_behind or loop.is_spoilt or not limits.can_open(NEEDED):
        return False
    return _is_as_before(before, order)


def _is_as_before(before: Surroundings, order: Order) -> bool:
    changed = before.differences()
    if changed:
        why = f"task {order.task} has changed its process: {', '.join(changed)}"
        with suppress(OSError):
            os.write(2, f"taskd worker: {why}; it is not used again\n".encode())
    return not changed


def _kill_tree(spared: frozenset[int], group: str) -> int | None:
    """How many leftovers were killed; None if some may live on (they went past us to the zygote, or
    the task hid /proc from us, or has left no descriptor, or something is in our group and no
    descendant of ours): our own end hands them to the zygote."""
    try:
        with limits.every_descriptor():
            killed = tree.kill_all(spared, resource_trackers.let_go)
            alone = not group or cgroup.holds_only(group, spared | {os.getpid()})
            return killed if alone and process.is_subreaper() else None
    except Exception:
        return None


def _prepare(order: Order, recorder: SlotRecorder) -> output.Output:
    """The task's scratch directory and its log, as soon as both can be had: none of its code has
    run, and nothing of its budgets is used. Raises Interrupted.

    What this process alone has not got, another worker may have: Yielded after a few tries."""
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

    return recorder.patiently("cannot begin yet", make, (OSError,))


def _run(
    registered: Any,
    order: Order,
    recorder: SlotRecorder,
    calm: Callable[[], None],
    loop: EventLoop,
) -> Ending:
    try:
        kept = None if order.saved is None else Saved.decode(order.saved)
        args = data.decode(order.args)
    except ProtocolError as error:  # of a newer taskd, say: another revision's may read it
        return unfit(Saved(registered.version), f"what it has saved cannot be read: {error}")
    ending = run_attempt(
        registered, args, kept, recorder, submitted_at=order.version, calm=calm, loop=loop
    )
    ending = ending._replace(exception=None)
    gc.collect()  # what the task leaves in memory ends with it, also where that takes code of its
    return ending


def _record(slot: SlotWriter, control: Control, order: Order, ending: Ending) -> int:
    """Write END, and what the next attempt continues from, to disk; returns where END stands."""
    fields: dict[str, Any] = {
        "task": order.task,
        "attempt": order.attempt,
        "outcome": ending.outcome.value,
        "progressed": ending.progressed,
        "version": ending.saved.version,
    }
    if ending.outcome is not Outcome.SUCCEEDED and ending.progressed:
        fields["snapshot"] = control.insist(lambda: slot.snapshot(ending.saved.encode()))
    if ending.unfit:
        fields["unfit"] = True
    for name in ("result", "error", "reason", "wake"):
        value = getattr(ending, name)
        if value is not None:
            fields[name] = value
    return control.insist(lambda: slot.append_end(fields))


@contextmanager
def _environment(boot: Boot, order: Order) -> Iterator[None]:
    """The variables that a task and its programs find. Afterwards they are what they were: the app
    may have set one of them at import."""
    ours = {
        "TASKD_TASK_ID": str(order.task),
        "TASKD_ATTEMPT": str(order.attempt),
        "TASKD_REVISION": boot.revision,
        "TASKD_SCRATCH": order.scratch,
        "TASKD_SOCKET": boot.sockets,
    }
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
