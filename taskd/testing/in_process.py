"""``eager()``: what is submitted runs at once, in this process, and no daemon is asked.

    from taskd import testing

    with testing.eager():
        task = import_orders.submit(path="orders.csv")
        assert task.result() == 3

It answers clients in the daemon's place (``client.stand_in``), so that handles, results and errors
are those that a daemon's tasks have: arguments, saved state and results pass through the same
encoding, and arguments through the same checks; a task that raises is tried again as often as its
code says, without the pauses, and then *its result* raises TaskFailed, with secrets masked. Only
``eager(raises=True)`` raises what the task raised, out of ``submit``.

A task runs in the thread that submits it, before ``submit`` returns; where an event loop runs in
that thread, in another one. Sleeps of a task take no time. The app's hooks run as in one worker
that lives as long as the block. What has no meaning here (a delay, logs, streams of events,
deploys, programs) raises NotEager: test that with a real daemon.
"""

from __future__ import annotations

import contextvars
import os
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from taskd import tasks
from taskd.client import default, stand_in
from taskd.client.session import Asked
from taskd.errors import KeyConflict, Refused, TaskHeld, UnknownTask
from taskd.model import retrying
from taskd.model.endings import Facts, judge
from taskd.model.order import IfFailed, after_end
from taskd.model.task import CHANGES, COMMAND, ENDED, SETTLED, Budgets, Change, State
from taskd.protocol import data
from taskd.protocol.saved import Saved
from taskd.protocol.submission import JOIN, REPLACE
from taskd.testing.eager_checks import KNOWN, check_arguments, check_same
from taskd.testing.surroundings import REVISION, apart
from taskd.testing.time_limit import time_limit
from taskd.worker import hooks
from taskd.worker.attempt import Ending, run_attempt
from taskd.worker.memory_recorder import MemoryRecorder
from taskd.worker.task_environment import task_environment

FIRST = 10**9 + 1
"""The first task's id: larger than any that a real daemon may have."""

MOST_ATTEMPTS = 1000
"""Of one task: here they follow one another at once, and might do so for ever."""


class NotEager(Exception):
    """``eager()`` cannot do this. Not a ``taskd.Error``: no code under test should handle it."""

    def __init__(self, what: str) -> None:
        super().__init__(f"eager() {what}: test it with a real daemon (the fixture taskd_daemon)")


@contextmanager
def eager(*, raises: bool = False, queues: Collection[str] = ()) -> Iterator[None]:
    """Run what is submitted in the block at once. ``raises``: an exception of a task comes out of
    ``submit``. ``queues``: further queues that may be named, as those of taskd.toml."""
    with tempfile.TemporaryDirectory(prefix="taskd-test-") as directory:
        before = stand_in.put(_Eager(directory, raises, frozenset(queues)))
        client, default.made = default.made, None
        try:
            hooks.worker_starts()
            yield
        finally:
            hooks.worker_stops()
            default.made = client
            stand_in.put(before)


@dataclass
class _Kept:
    """One task, as a daemon's store would have it."""

    id: int
    task: tasks.Task[..., Any]
    args: bytes
    queue: str
    priority: int
    key: str | None
    retries_said: int | None
    timeout: float | None
    after: list[int]
    if_failed: IfFailed
    state: State = State.QUEUED
    attempt: int = 0
    budgets: Budgets = field(default_factory=Budgets)
    saved: Saved | None = None
    reason: str | None = None
    result: bytes | None = None
    error: dict[str, Any] | None = None
    progress: dict[str, Any] | None = None
    submitted: float = field(default_factory=time.time)
    started: float | None = None
    ended: float | None = None
    ran: float | None = None
    recorder: MemoryRecorder | None = None  # of the attempt that runs

    def view(self) -> dict[str, Any]:
        """TASK of ``protocol.control``."""
        is_resuming = self.state is State.RUNNING and self.saved is not None
        return {
            "id": self.id,
            "name": self.task.name,
            "queue": self.queue,
            "state": self.state.value,
            "shown": "resuming" if is_resuming else self.state.value,
            "reason": self.reason,
            "attempt": self.attempt,
            "revision": REVISION,
            "progress": self.progress,
            "result": self.result,
            "error": self.error,
            "submitted": self.submitted,
            "started": self.started,
            "ended": self.ended,
            "ran": self.ran,
            "owner": os.getuid(),
            "priority": self.priority,
            "key": self.key,
            "run_at": None,
        }


class _Eager:
    """Implements ``client.stand_in.StandIn``."""

    def __init__(self, directory: str, raises: bool, queues: frozenset[str]) -> None:
        self._directory = directory
        self._raises = raises
        self._queues = queues
        self._kept: dict[int, _Kept] = {}
        self._submissions: dict[bytes, int] = {}
        self._children: dict[tuple[int, str], int] = {}

    def answer(self, asked: Asked) -> dict[str, Any]:
        handlers: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "submit": self._submit,
            "show": lambda fields: {"task": self._known(fields["task"]).view()},
            "list": self._list,
            "cancel": self._cancel,
            "retry": self._retry,
        }
        if asked.op not in handlers:
            raise NotEager(f"has no daemon to ask for {asked.op!r}")
        return handlers[asked.op](asked.fields)

    def items(self, asked: Asked) -> Iterator[dict[str, Any]]:
        if asked.op != "wait":
            raise NotEager("tells no events")
        for kept in [self._known(task) for task in asked.fields["tasks"]]:
            if kept.state not in SETTLED:
                raise Refused(f"task {kept.id} would wait for itself")
            yield {"task": kept.view()}

    # ── requests ─────────────────────────────────────────────────────────────────────────────

    def _submit(self, fields: dict[str, Any]) -> dict[str, Any]:
        made: list[tuple[_Kept, bool]] = []
        for new in fields["tasks"]:
            earlier = [made[place][0].id for place in new.get("after_new") or ()]
            made.append(self._taken(new | {"after": [*(new.get("after") or ()), *earlier]}))
        for kept, created in made:
            if created:
                self._start(kept)
        return {"tasks": [{"id": kept.id, "created": created} for kept, created in made]}

    def _taken(self, new: dict[str, Any]) -> tuple[_Kept, bool]:
        """The task that a submission makes, or leads to; and whether it is new."""
        task = self._task(new["name"])
        check_arguments(task, new["args"])
        odd = {name for name, value in new.items() if value is not None} - KNOWN
        if new.get("delay") == 0:
            odd.discard("delay")
        if odd:
            raise NotEager(f"does not know {', '.join(sorted(odd))}")
        queue = new.get("queue") or task.queue
        if queue not in self._queues | {each.queue for each in tasks.registered.values()}:
            raise NotEager(f"reads no taskd.toml: name its queues, eager(queues=[{queue!r}]), or")
        child = (new["parent"], new["child"]) if new.get("parent") else None
        if new["submission"] in self._submissions:
            return self._kept[self._submissions[new["submission"]]], False
        if child and child in self._children:
            return self._kept[self._children[child]], False
        if (taken := self._with_key(new.get("key"))) is not None:
            if (policy := new.get("if_exists") or JOIN) != JOIN:
                if policy == REPLACE:
                    raise NotEager("has no task that waits and could be replaced")
                raise KeyConflict(f'the key "{taken.key}" is that of task {taken.id}')
            check_same(taken, new)
            return taken, False
        for other in new.get("after") or ():
            self._known(other)
        kept = _Kept(
            id=FIRST + len(self._kept),
            task=task,
            args=new["args"],
            queue=queue,
            priority=new.get("priority") or 0,
            key=new.get("key"),
            retries_said=new.get("retries"),
            timeout=new.get("timeout"),
            after=new.get("after") or [],
            if_failed=IfFailed(new.get("if_failed") or IfFailed.HOLD),
        )
        self._kept[kept.id] = kept
        self._submissions[new["submission"]] = kept.id
        if child:
            self._children[child] = kept.id
        return kept, True

    def _task(self, name: str) -> tasks.Task[..., Any]:
        if name == COMMAND:
            raise NotEager("runs no programs")
        if (task := tasks.registered.get(name)) is not None:
            return task
        import difflib

        near = difflib.get_close_matches(name, tasks.registered, 3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise UnknownTask(f"no module that this test has imported has a task {name!r}{hint}")

    def _with_key(self, key: str | None) -> _Kept | None:
        alive = (kept for kept in self._kept.values() if kept.state not in ENDED)
        return next((kept for kept in alive if key is not None and kept.key == key), None)

    def _known(self, task: int) -> _Kept:
        if task not in self._kept:
            raise UnknownTask(f"no task {task}")
        return self._kept[task]

    def _list(self, fields: dict[str, Any]) -> dict[str, Any]:
        found = []
        for kept in reversed(self._kept.values()):
            is_wanted = all(
                fields.get(name) in (None, value)
                for name, value in (
                    ("state", kept.state.value),
                    ("queue", kept.queue),
                    ("name", kept.task.name),
                )
            )
            if is_wanted and kept.id < (fields.get("before") or kept.id + 1):
                found.append(kept.view() | ({} if fields.get("results") else {"result": None}))
        return {"tasks": found[: fields.get("limit") or 100]}

    def _cancel(self, fields: dict[str, Any]) -> dict[str, Any]:
        kept = self._known(fields["task"])
        was = kept.state
        if kept.recorder is not None:
            kept.recorder.ask("cancel", f"cancelled by user {os.getuid()}")
        elif (was, Change.CANCEL) in CHANGES:
            kept.state, kept.reason = State.CANCELLED, f"cancelled by user {os.getuid()}"
            kept.ended = time.time()
        return {"state": kept.state.value, "was": was.value}

    def _retry(self, fields: dict[str, Any]) -> dict[str, Any]:
        kept = self._known(fields["task"])
        if (kept.state, Change.RETRY) not in CHANGES:
            raise Refused(
                f"task {kept.id} is {kept.state.value}; only a held, failed or cancelled task can "
                "be retried"
            )
        taken = self._with_key(kept.key)
        if taken is not None and taken is not kept:
            raise KeyConflict(f'its key "{kept.key}" is now that of task {taken.id}')
        kept.state, kept.budgets = State.QUEUED, Budgets()
        kept.error, kept.reason, kept.ended = None, None, None
        self._start(kept)
        return {"state": State.QUEUED.value}

    # ── running ──────────────────────────────────────────────────────────────────────────────

    def _start(self, kept: _Kept) -> None:
        """Run it, once what it comes after has ended as it says; and then what comes after it."""
        for other in map(self._known, kept.after):
            what = after_end(kept.if_failed, other.state) if other.state in ENDED else None
            if what is None:
                kept.state, kept.reason = State.SCHEDULED, f"waits for task {other.id}"
                return
            if what is Change.CANCEL:
                kept.state, kept.ended = State.CANCELLED, time.time()
                kept.reason = f"was to run after task {other.id}, which {other.state.value}"
                break
        else:
            kept.state = State.QUEUED
            apart(lambda: self._run(kept))
        for waiting in [each for each in self._kept.values() if kept.id in each.after]:
            if waiting.state is State.SCHEDULED and kept.state in ENDED:
                self._start(waiting)

    def _run(self, kept: _Kept) -> None:
        """All attempts, until it is settled."""
        now = time.time()
        while kept.state not in SETTLED:
            if kept.attempt >= MOST_ATTEMPTS:
                raise NotEager(f"makes {MOST_ATTEMPTS} attempts of a task at most")
            ending, now = self._attempt(kept, now)
        if self._raises and kept.state is State.FAILED and ending.exception is not None:
            raise ending.exception
        if self._raises and kept.state is State.HELD:
            raise TaskHeld(f"task {kept.id} ({kept.task.name}) is held: {kept.reason}")

    def _attempt(self, kept: _Kept, now: float) -> tuple[Ending, float]:
        """One attempt, and the time at which the next one may begin."""
        scratch = os.path.join(self._directory, str(kept.id))
        kept.attempt += 1
        kept.state, kept.reason = State.RUNNING, None
        begun = time.time()
        kept.started = kept.started or begun
        recorder = kept.recorder = MemoryRecorder(
            scratch=scratch, attempt=kept.attempt, now=now, id=str(kept.id), revision=REVISION
        )
        around = hooks.AroundTask(recorder.id, kept.task.name, recorder.attempt, REVISION)
        os.makedirs(scratch, 0o700, exist_ok=True)
        no_daemon = os.path.join(self._directory, "none.sock")  # no program of the task's finds one
        limit = kept.task.timeout if kept.timeout is None else kept.timeout
        of = (kept.id, kept.attempt, REVISION, scratch, no_daemon)
        try:
            with time_limit(recorder, limit), task_environment(*of):
                context = contextvars.copy_context()
                ending = context.run(
                    run_attempt,
                    kept.task,
                    data.decode(kept.args),
                    None if kept.saved is None else Saved.decode(kept.saved.encode()),
                    recorder,
                    failures=kept.budgets.retries,
                    clock=recorder.clock,
                    begin=around.begin,
                )
                if around.is_due:
                    context.run(around.end, ending.outcome.value, ending.exception)
        finally:
            kept.recorder = None
        if isinstance(ending.exception, KeyboardInterrupt):  # of who runs the tests
            raise ending.exception
        if recorder.reports:
            kept.progress = dict(zip(("done", "total", "note"), recorder.reports[-1], strict=True))
        kept.ran = (kept.ran or 0.0) + time.time() - begun
        wish = recorder.wish()
        delay = _settle(kept, ending, recorder, wish is not None and wish.kind == "cancel")
        return ending, recorder.now + delay


def _settle(kept: _Kept, ending: Ending, recorder: MemoryRecorder, is_cancelled: bool) -> float:
    """What the daemon makes of an attempt's end. Seconds that it would wait for the next one."""
    facts = Facts(
        outcome=ending.outcome.value,
        progressed=ending.progressed,
        reason=ending.reason,
        wake=ending.wake,
        error=ending.error,
        failure=None if ending.retry is None else retrying.failure(ending.retry),
    )
    allowed = retrying.allowed(kept.retries_said, facts.failure, kept.task.retries)
    verdict = judge(facts, kept.budgets, allowed, recorder.now)
    kept.state, kept.reason, kept.budgets = verdict.state, verdict.reason, verdict.budgets
    if is_cancelled and kept.state is not State.SUCCEEDED:
        kept.state, kept.reason = State.CANCELLED, f"cancelled by user {os.getuid()}"
    kept.error = verdict.error
    if kept.state is State.SUCCEEDED:
        kept.result, kept.saved = ending.result, None
    elif ending.progressed:
        kept.saved = recorder.rebuild(kept.saved, kept.task.version)
    if kept.state in SETTLED:
        kept.ended = time.time()
    return verdict.delay or 0.0
