"""Runs a task in a test, without a daemon: to its end, or interrupted or killed at a chosen place.

    from taskd import testing

    whole = testing.run(import_orders, {"path": path})
    part = testing.run(import_orders, {"path": path}, interrupt_after=("rows", 40))
    assert part.interrupted
    rest = testing.run(import_orders, {"path": path}, resume_from=part.saved)
    assert rest.result == whole.result
    assert part.items["rows"] + rest.items["rows"] == whole.items["rows"]

State of an older version is migrated, as on a new release. To show that new code can take it, keep
the ``saved`` of the old code as bytes in a file beside the tests; with nothing saved yet, only the
arguments are migrated:

    from taskd.protocol.saved import Saved

    old = Saved.decode(Path("tests/import_orders-1.saved").read_bytes())  # written: saved.encode()
    rest = testing.run(import_orders, {"path": path}, resume_from=old)
    fresh = testing.run(import_orders, {"path": path}, submitted_at=1)

A task that fails is tried again as its code says, at once, as if the time had passed: ``waited``
has how long each wait would have been (without jitter), and the last error is raised in the end.

    @task(retries=3, backoff=[1, 10, 60])
    def fetch(ctx: Context, url: str) -> int: ...

    done = testing.run(fetch, {"url": url})
    assert done.waited == [1, 10]

The task runs in the calling thread. What it saves is written as the records that a worker would
write, and ``saved`` is rebuilt from their bytes alone. Arguments are encoded and decoded, as they
are on their way to a worker. A named ``ctx.sleep`` ends the attempt and the next one follows at
once, as if the time had passed; other sleeps take no time either. The app's hooks
(``taskd.on_task_start`` and so on) run, as in a worker of the run's own. A kill is an exception
here: unlike after a real kill, ``finally`` blocks run, but they can save nothing more.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from taskd.errors import TaskCancelled, TaskHeld
from taskd.model import retrying
from taskd.model.endings import Facts, judge
from taskd.model.task import Budgets, State
from taskd.protocol import data
from taskd.protocol.saved import Kind, Outcome, Saved
from taskd.tasks import Task, make_task
from taskd.worker import hooks
from taskd.worker.attempt import Ending, run_attempt
from taskd.worker.memory_recorder import MemoryRecorder

Place = tuple[str, int]
"""A loop's name, or its path (``files/rows``), and the number of an item, counted from 1."""


@dataclass
class Run:
    """The result of a run.

    ``result``: what the task returned, None unless it ended. ``interrupted``: it left, or was
    killed, before its end; ``killed`` says which. ``saved``: for ``resume_from``. ``items``: by
    the path of each loop, the items whose body was begun, in order. ``progress``: the last
    (done, total, note) reported, or None. ``attempts``: more than one if it slept, failed or was
    put off. ``waited``: seconds before each further try. ``failures``: the failed tries' errors.
    """

    result: Any
    interrupted: bool
    killed: bool
    saved: Saved
    items: dict[str, list[Any]]
    progress: tuple[int | None, int | None, str] | None
    attempts: int
    waited: list[float] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)


def run(
    fn: Task[..., Any] | Callable[..., Any],
    args: Mapping[str, Any] | None = None,
    *,
    interrupt_after: Place | None = None,
    kill_at: Place | str | None = None,
    resume_from: Saved | None = None,
    submitted_at: int | None = None,
    scratch: str | None = None,
) -> Run:
    """Run a task, or a plain function as one, with ``args`` by name.

    ``interrupt_after=("rows", 40)``: it is asked to leave once 40 items of that loop are saved.
    ``kill_at=("rows", 3)``: it is killed at the end of the third item's body, before the item is
    saved. ``kill_at="count"``: it is killed once the step was called, before its result is kept.
    ``resume_from``: the ``saved`` of an earlier run, perhaps by an older version of the task, which
    is migrated; ``args`` are then those that were submitted to that version. ``submitted_at``: the
    version that they were submitted to where nothing is saved; the task's own by default.
    ``scratch``: the directory for ``ctx.scratch``; a temporary one of this run by default.

    What the task raises is raised here, once its retries are used up. Raises TaskCancelled if it
    cancels itself, TaskHeld if it cannot continue from ``resume_from`` (a failing migration is such
    a case), BadArguments and NotPlainData as
    ``submit`` does, and ValueError if it ended without having reached the named loop or step (a
    loop with fewer items is no such error: then ``interrupted`` is False).
    """
    made = fn if isinstance(fn, Task) else make_task(fn)
    begin = resume_from
    if begin is None and submitted_at is not None:
        begin = Saved(submitted_at)
    given = made.annotations.plain(args or {})
    raw = data.encode(given, "args", data.ARGUMENTS_LIMIT)
    # Arguments that a migration rewrites need not bind.
    as_given = begin is None or (begin.version == made.version and begin.args is None)
    if as_given:
        made.check_arguments(given)
    plan = _Plan(interrupt_after, kill_at)
    with (
        tempfile.TemporaryDirectory(prefix="taskd-test-")
        if scratch is None
        else nullcontext(scratch)
    ) as directory:
        runner = _Runner(made, data.decode(raw), plan, directory)
        return runner.run(begin, 1 if resume_from is None else 2)


@dataclass
class _Plan:
    """Ends the run at the chosen place, which it finds by the records that the run writes.

    An item's record is written when its body is over, a step's when its function has returned. A
    kill comes before the record, where it loses the most; a wish to leave after it.
    """

    interrupt_after: Place | None
    kill_at: Place | str | None
    met: set[str] = field(default_factory=set)  # names and paths of the loops and steps that saved

    def __post_init__(self) -> None:
        for place in (self.interrupt_after, self.kill_at):
            if isinstance(place, tuple) and (type(place[1]) is not int or place[1] < 1):
                raise ValueError(f"{place!r}: items are counted from 1")

    def before(self, recorder: MemoryRecorder, kind: Kind, fields: dict[str, Any]) -> None:
        names = _names(kind, fields)
        self.met.update(names)
        is_item = isinstance(self.kill_at, tuple) and self._is_item(self.kill_at, kind, fields)
        if is_item or (kind is Kind.STEP and self.kill_at in names):
            recorder.kill()

    def after(self, recorder: MemoryRecorder, kind: Kind, fields: dict[str, Any]) -> None:
        if self.interrupt_after and self._is_item(self.interrupt_after, kind, fields):
            recorder.ask("leave", "interrupted by the test")

    def _is_item(self, place: Place, kind: Kind, fields: dict[str, Any]) -> bool:
        is_of_loop = kind is Kind.LOOP and place[0] in _names(kind, fields)
        return is_of_loop and bool(fields["mark"]["done"] == place[1])

    def check_met(self) -> None:
        """Raise ValueError if a named loop or step has saved nothing: the name may be misspelt."""
        for place in (self.interrupt_after, self.kill_at):
            name = place[0] if isinstance(place, tuple) else place
            if name is not None and name not in self.met:
                raise ValueError(
                    f"the task ended without having saved anything in {name!r}; it saved "
                    f"{', '.join(sorted(self.met)) or 'nothing'}"
                )


def _names(kind: Kind, fields: dict[str, Any]) -> tuple[str, ...]:
    path = fields.get("path", "") if kind in (Kind.STEP, Kind.LOOP) else ""
    return (path, path.rpartition("/")[2]) if path else ()


@dataclass
class _Runner:
    """Runs attempts, the next one after each named sleep and each failure that is tried again."""

    task: Task[..., Any]
    args: dict[str, Any]
    plan: _Plan
    scratch: str
    items: dict[str, list[Any]] = field(default_factory=dict)
    progress: tuple[int | None, int | None, str] | None = None
    budgets: Budgets = field(default_factory=Budgets)
    waited: list[float] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)
    is_killed: bool = False

    def run(self, saved: Saved | None, number: int) -> Run:
        """As a worker of its own does it, with the app's hooks."""
        hooks.worker_starts()
        try:
            return self._attempts(saved, number)
        finally:
            if not self.is_killed:
                hooks.worker_stops()

    def _attempts(self, saved: Saved | None, number: int) -> Run:
        recorder = self._recorder(number, None)
        while True:
            around = hooks.AroundTask(
                recorder.id, self.task.name, recorder.attempt, recorder.revision
            )
            ending = run_attempt(
                self.task,
                self.args,
                None if saved is None else Saved.decode(saved.encode()),
                recorder,
                failures=self.budgets.retries,
                clock=recorder.clock,
                on_item=self._note,
                begin=around.begin,
            )
            self.is_killed = recorder.killed
            if around.is_due and not self.is_killed:
                around.end(ending.outcome.value, ending.exception)
            if recorder.reports:
                self.progress = recorder.reports[-1]
            saved = recorder.rebuild(saved, self.task.version)
            again = None if recorder.killed else self._again(ending, recorder.now)
            if again is None:
                return self._report(ending, recorder, saved)
            recorder = self._recorder(recorder.attempt + 1, recorder.now + again)

    def _again(self, ending: Ending, now: float) -> float | None:
        """Seconds to the next attempt, as the daemon would decide; None: this was the last."""
        if ending.outcome not in (Outcome.SLEEPING, Outcome.FAILED):
            return None
        facts = Facts(
            ending.outcome.value,
            ending.progressed,
            wake=ending.wake,
            error=ending.error,
            failure=None if ending.retry is None else retrying.failure(ending.retry),
        )
        verdict = judge(facts, self.budgets, self.task.retries, now)
        if verdict.state is not State.SCHEDULED or verdict.delay is None:
            return None
        self.budgets = verdict.budgets
        if ending.exception is not None:
            self.waited.append(verdict.delay)
            if ending.outcome is Outcome.FAILED:
                self.failures.append(ending.exception)
        return verdict.delay

    def _recorder(self, attempt: int, now: float | None) -> MemoryRecorder:
        recorder = MemoryRecorder(
            scratch=self.scratch,
            attempt=attempt,
            before=lambda kind, fields: self.plan.before(recorder, kind, fields),
            after=lambda kind, fields: self.plan.after(recorder, kind, fields),
        )
        recorder.now = recorder.now if now is None else now
        return recorder

    def _note(self, path: str, item: Any) -> None:
        self.items.setdefault(path, []).append(item)

    def _report(self, ending: Ending, recorder: MemoryRecorder, saved: Saved) -> Run:
        if not recorder.killed and ending.exception is not None:
            raise ending.exception
        if not recorder.killed and ending.outcome is Outcome.HELD:
            raise TaskHeld(ending.reason)
        if not recorder.killed and ending.outcome is Outcome.CANCELLED:
            raise TaskCancelled(ending.reason)
        interrupted = recorder.killed or ending.outcome is not Outcome.SUCCEEDED
        if not interrupted:
            self.plan.check_met()
        result = None if interrupted or ending.result is None else data.decode(ending.result)
        return Run(
            result=result,
            interrupted=interrupted,
            killed=recorder.killed,
            saved=saved,
            items=self.items,
            progress=self.progress,
            attempts=recorder.attempt,
            waited=self.waited,
            failures=self.failures,
        )
