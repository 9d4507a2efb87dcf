"""The Store: what the master asks of whatever keeps everything at rest.

Runs in the master alone, which is the sole writer. ``Store.apply`` is called by the writer
thread (``writer``) with all operations that have gathered: one transaction, one sync, for all of
them. ``Reader`` is called by the loop and sees what is committed. Every change of a task's state
goes by ``model.task.CHANGES``, is guarded by (task, attempt, state) and writes its numbered event
in the same transaction. Every store passes tests/contract.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from taskd.model.task import Budgets, OnDeploy, State

SCHEMA = 1
"""Version of the schema; it only grows within a major version of taskd."""


class Row(NamedTuple):
    """A task as the store has it; times are Unix seconds."""

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


class Event(NamedTuple):
    """One state change of one task; ``number`` grows over all tasks."""

    number: int
    task: int
    at: float
    state: State
    attempt: int
    revision: str | None
    reason: str | None


class Group(NamedTuple):
    """How many tasks wait (queued, scheduled or held) that look alike to a new revision.

    ``version`` is that of the saved state, or the one at submission where nothing is saved;
    ``shape`` is the sorted argument names joined by commas; ``example`` is one such task.
    """

    name: str
    version: int
    shape: str
    waiting: int
    example: int


class Submit(NamedTuple):
    """A new task, unless its submission id or its live key is known. Result: Submitted."""

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


class Submitted(NamedTuple):
    """``created`` is False when the submission id or the key found an earlier task."""

    task: int
    created: bool


class Claim(NamedTuple):
    """queued → running for that worker. Result: the new attempt number, or None if not queued.

    ``worker`` is the worker's identity, opaque here (see ``master``).
    """

    task: int
    worker: bytes
    revision: str
    at: float


class Settle(NamedTuple):
    """An attempt is over: running → ``state``. Result: Answer.

    If a cancel was wished, any state but ``succeeded`` becomes ``cancelled``. ``saved`` replaces
    the kept state, None leaves it, b"" drops it. ``budgets`` replaces the counts.
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


class Cancel(NamedTuple):
    """Queued, scheduled and held tasks are cancelled at once; a running one gets the wish.

    ``owner`` None is an operator; else another's task answers as unknown. Result: Cancelled.
    """

    task: int
    owner: int | None
    at: float


class Cancelled(NamedTuple):
    """``state`` is the state after; ``was`` before. Both ``running``: the wish is on disk."""

    state: State
    was: State


class Retry(NamedTuple):
    """Held, failed or cancelled → queued, budgets fresh, with what was saved. Result: State."""

    task: int
    owner: int | None
    at: float


class Hold(NamedTuple):
    """queued → held, since no live revision can continue it. Result: True if it was queued."""

    task: int
    reason: str
    at: float


class Wake(NamedTuple):
    """scheduled → queued for up to ``limit`` tasks whose time has come. Result: their count."""

    now: float
    limit: int


class Answer:
    """What ``Settle`` says: whether this end counted (the words the worker protocol uses)."""

    RECORDED = "recorded"
    ALREADY = "already recorded"
    SUPERSEDED = "superseded"


Operation = Submit | Claim | Settle | Cancel | Retry | Hold | Wake


class Applied(NamedTuple):
    """What became of one operation: a result, or the refusal it earned (which harms no other).

    ``task``: whose events changed, or None.
    """

    result: Any
    task: int | None


class Filter(NamedTuple):
    """Which tasks ``Reader.tasks`` lists; None does not narrow. ``before``: ids below it."""

    owner: int | None = None
    state: State | None = None
    queue: str | None = None
    name: str | None = None
    before: int | None = None
    limit: int = 100


class Reader(Protocol):
    """Committed state, read by the loop; every call is a few index look-ups."""

    def task(self, task: int) -> Row | None: ...
    def args(self, task: int) -> bytes: ...
    def saved(self, task: int) -> bytes | None: ...
    def result(self, task: int) -> bytes | None: ...
    def tasks(self, filter: Filter) -> list[Row]: ...
    def events(self, task: int, after: int, limit: int) -> list[Event]: ...
    def ready(self, queue: str, limit: int) -> list[Row]: ...
    def running(self, after: int, limit: int) -> list[Row]: ...
    def counts(self) -> dict[tuple[str, State], int]: ...
    def groups(self) -> list[Group]: ...
    def next_due(self) -> float | None: ...
    def close(self) -> None: ...


class Store(Protocol):
    """The writing side; used by one thread at a time."""

    def apply(self, operations: Sequence[Operation]) -> list[Applied]: ...
    def checkpoint(self) -> None: ...
    def close(self) -> None: ...
