"""The Store: what the master asks of whatever keeps everything at rest.

Runs in the master alone, which is the sole writer. ``Store.apply`` is called by the writer
thread (``writer``) with all operations that have gathered: one transaction, one sync, for all of
them. ``Reader`` is called by the loop and sees what is committed. Every change of a task's state
goes by ``model.task.CHANGES``, is guarded by (task, attempt, state) and writes its numbered event
in the same transaction. Every store passes tests/contract.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from taskd.errors import StoreDamaged
from taskd.model.task import Budgets, OnDeploy, State
from taskd.record import Record

SCHEMA = 1
"""Version of the schema; it only grows within a major version of taskd."""


class Row(Record):
    """A task as the store has it; times are Unix seconds.

    ``version`` is that of the task function at submission, ``saved_version`` that of the kept
    state (None: nothing is kept). ``run_at`` is None but while scheduled, ``worker`` but while
    running; ``revision`` is where the last attempt ran. ``started`` is the first attempt's start.
    ``error`` is that of the last attempt that ended; a claim clears ``reason`` alone.
    """

    id: int
    owner: int
    name: str
    version: int
    queue: str
    priority: int
    state: State
    attempt: int
    key: str | None
    on_deploy: OnDeploy | None
    run_at: float | None
    cancel_wished: bool
    worker: bytes | None
    revision: str | None
    retries_allowed: int
    budgets: Budgets
    saved_version: int | None
    reason: str | None
    error: dict[str, Any] | None
    progress: dict[str, Any] | None
    submitted: float
    started: float | None
    ended: float | None


class Event(Record):
    """One state change of one task; ``number`` grows over all tasks."""

    number: int
    task: int
    at: float
    state: State
    attempt: int
    revision: str | None
    reason: str | None


class Group(Record):
    """How many tasks wait (queued, scheduled or held) that look alike to a new revision.

    ``version`` is that of the saved state, or the one at submission where nothing is saved;
    ``shape`` is the sorted argument names joined by commas, a ``*`` behind each that holds a
    Secret; ``example`` is one such task.
    """

    name: str
    version: int
    shape: str
    waiting: int
    example: int


class Share(Record):
    """What the owner of a task may have in the store: tasks that are not over, and bytes of their
    arguments; None: as many as there are. ``full``: why nobody may add anything just now."""

    tasks: int | None
    bytes: int | None
    full: str | None = None


class Submit(Record):
    """A new task, unless its submission id or its live key is known. Result: Submitted.

    A new one beyond ``share`` (None: no limit) is refused with LimitReached; one that is known
    already is not. One that is known by its key alone is refused where ``share`` is full: its own
    submission id, which will be known for ever, takes room.

    A submission id stays known for ever, also one that found its task by the key. Another
    owner's submission id is refused. A key lives until its task has ended (held is not ended);
    the same key with another name or other bytes of arguments is a KeyConflict. A ``run_at``
    after ``at`` makes the task scheduled, else it is queued.
    """

    submission: bytes
    owner: int
    name: str
    version: int
    args: bytes
    shape: str
    queue: str
    priority: int
    key: str | None
    run_at: float | None
    retries: int
    on_deploy: OnDeploy | None
    at: float
    share: Share | None = None


class SubmitAll(Record):
    """Several new tasks of one request: all of them, or none if one of them is refused.

    Result: a list of Submitted, in order, or that one's refusal. Other operations go on.
    """

    tasks: tuple[Submit, ...]


class Submitted(Record):
    """``created`` is False when the submission id or the key found an earlier task."""

    task: int
    created: bool


class Claim(Record):
    """queued → running for that worker. Result: the new attempt number, or None if not queued.

    ``worker`` is the worker's identity, opaque here (see ``master``).
    """

    task: int
    worker: bytes
    revision: str
    at: float


class Settle(Record):
    """An attempt is over: running → ``state``. Result: Answer.

    If a cancel was wished, any state but ``succeeded`` becomes ``cancelled``, and for one that
    would have gone on, ``if_cancelled`` is the reason. ``saved`` replaces
    the kept state, None leaves it, b"" drops it; a task that succeeded keeps none in any case.
    ``saved_version`` goes with ``saved`` (None: the version at submission). ``progress`` None
    leaves the last one. ``budgets`` replaces the counts. ``scheduled`` needs ``run_at``, else
    ValueError; so does a ``state`` that no end leads to: both are bugs of the caller.
    """

    task: int
    attempt: int
    state: State
    at: float
    budgets: Budgets
    reason: str | None = None
    result: bytes | None = None
    error: dict[str, Any] | None = None
    saved: bytes | None = None
    saved_version: int | None = None
    run_at: float | None = None
    progress: dict[str, Any] | None = None
    if_cancelled: str | None = None


class Cancel(Record):
    """Queued, scheduled and held tasks are cancelled at once; a running one gets the wish.

    ``owner`` None is an operator; else another's task answers as unknown. An ended one stays as
    it is. Result: Cancelled; Applied.task is None where no event was written.
    """

    task: int
    owner: int | None
    at: float


class Cancelled(Record):
    """``state`` is the state after; ``was`` before. Both ``running``: the wish is on disk."""

    state: State
    was: State


class Retry(Record):
    """Held, failed or cancelled → queued, budgets fresh, with what was saved. Result: State.

    Result, error, reason, end and the wish to cancel are cleared; attempts go on counting. Any
    other state is refused, and so is a task whose key another live task has taken meanwhile;
    with LimitReached, an ended one that is beyond ``share`` now.
    """

    task: int
    owner: int | None
    at: float
    share: Share | None = None


class Hold(Record):
    """queued → held, since no live revision can continue it. Result: True if it was queued."""

    task: int
    reason: str
    at: float


class Wake(Record):
    """scheduled → queued for up to ``limit`` tasks whose time has come, the longest due first.

    Result: the list of their ids (Applied.task is None).
    """

    now: float
    limit: int


class Shift(Record):
    """Every scheduled task is due ``by`` seconds later (earlier, where that is negative).

    For a clock that was set. No event is written, since no state changes. Result: how many.
    """

    by: float


class Answer:
    """What ``Settle`` says: whether this end counted (the words the worker protocol uses).

    ALREADY: this very attempt is no longer running. SUPERSEDED: a later attempt exists, or the
    store does not know the task or the attempt.
    """

    RECORDED = "recorded"
    ALREADY = "already recorded"
    SUPERSEDED = "superseded"


Operation = Submit | SubmitAll | Claim | Settle | Cancel | Retry | Hold | Wake | Shift


class Applied(Record):
    """What became of one operation: a result, or the refusal it earned (which harms no other).

    ``task``: whose events changed, or None. Where several are concerned (SubmitAll, Wake), the
    result names them. ``end``: of a Settle that counted, as it was recorded.
    """

    result: Any
    task: int | None
    end: Settle | None = None


class Filter(Record):
    """Which tasks ``Reader.tasks`` lists; None does not narrow. ``before``: ids below it."""

    owner: int | None = None
    state: State | None = None
    queue: str | None = None
    name: str | None = None
    before: int | None = None
    limit: int = 100


class Reader(Protocol):
    """Committed state, read by the loop; every call is a few index look-ups.

    Each call sees the latest commit and leaves no transaction open. Each raises errors.StoreError
    where the store cannot be read. Lists by ``after`` and ``before`` exclude that id or number.
    """

    damage: StoreDamaged | None
    """Set for good as soon as a call finds that the store is damaged."""

    def task(self, task: int) -> Row | None:
        """The task, or None."""

    def args(self, task: int) -> bytes:
        """Its arguments as submitted. Raises errors.UnknownTask."""

    def saved(self, task: int) -> bytes | None:
        """Its kept state, or None."""

    def result(self, task: int) -> bytes | None:
        """Its result, or None unless it succeeded."""

    def tasks(self, filter: Filter) -> list[Row]:
        """Newest first."""

    def events(self, task: int, after: int, limit: int) -> list[Event]:
        """Its events in order of their numbers."""

    def events_of(self, tasks: Sequence[int], after: int, limit: int) -> list[Event]:
        """The first events of all these tasks in order of their numbers, as of one moment: no
        event with a lower number appears later."""

    def ran(self, tasks: Sequence[int], now: float) -> dict[int, float]:
        """Seconds that the attempts of each of these tasks ran, by its events; one that runs does
        so until ``now``. Tasks that never ran are left out."""

    def ready(self, queue: str, limit: int) -> list[Row]:
        """Queued tasks in the order to claim them: higher priority first, then in turns between
        owners, each one's in the order in which they became ready."""

    def running(self, after: int, limit: int) -> list[Row]:
        """Running tasks by id."""

    def counts(self) -> dict[tuple[str, State], int]:
        """Tasks by (queue, state); pairs without a task are left out."""

    def totals(self) -> dict[State, int]:
        """Tasks by state; those without a task are left out."""

    def queue(self, name: str) -> dict[State, int]:
        """The tasks of one queue by state; those without a task are left out."""

    def queued(self, after: str, limit: int) -> list[str]:
        """The first queues behind that name in which a task is ready. Others cost nothing."""

    def busy(self, limit: int) -> list[str]:
        """Up to ``limit`` queues in which a task is ready or runs."""

    def groups(self) -> list[Group]:
        """The groups in which a task waits."""

    def waiting(self) -> dict[tuple[str, int], int]:
        """The tasks that wait by (name, version), as groups have them, whatever their shapes."""

    def next_due(self) -> float | None:
        """When the first scheduled task is due, or None."""

    def close(self) -> None: ...


class Store(Protocol):
    """The writing side; used by one thread at a time."""

    def apply(self, operations: Sequence[Operation]) -> list[Applied]:
        """All of them in one durable transaction; a refused one harms no other.

        Raises errors.StoreError if the store cannot commit: then nothing of it happened.
        """

    def checkpoint(self) -> None:
        """Take work from the next opening or closing. Raises errors.StoreError."""

    def close(self) -> None: ...
