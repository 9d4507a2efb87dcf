"""The store's contract: the operations that change it, the values it returns, and Store.

The store is used in the master alone, which is the only writer. The writer thread (``writer``)
calls ``Store.apply`` with all operations that have gathered: one transaction and one sync for all.
What is asked of it stands in ``queries``. Every change of a task's state goes by
``model.task.CHANGES``, is guarded by (task, attempt, state) and writes its numbered event in the
same transaction. Every store passes tests/contract.

What is due is decided by the store's own clock alone: who submits or ends says how many seconds
later (``delay``). ``at`` is when that was, for events and views.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from taskd.model.task import Budgets, OnDeploy, State
from taskd.record import Protocol, Record
from taskd.store.values import Kind

SCHEMA = 1
"""Version of the schema; it only grows within a major version of taskd."""


class Share(Record):
    """How many tasks that are not over one owner may have in the store, and how many bytes of their
    arguments; None: no limit. ``full``: why no owner may add a task just now."""

    tasks: int | None
    bytes: int | None
    full: str | None = None


class Submit(Record):
    """A new task, unless its submission id or its live key is known. Result: Submitted.

    A new task beyond ``share`` (None: no limit) is refused with LimitReached. A known submission is
    not refused. One that is known only by its key is refused if ``share`` is full: its submission
    id, which is kept for ever, takes room.

    A submission id is kept for ever, also one that found its task by the key. Another owner's
    submission id is refused. A key lives until its task has ended (held is not ended); the same key
    with another name or other bytes of arguments is a KeyConflict. With a ``delay`` (seconds) the
    task is scheduled; else it is queued.
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
    delay: float | None
    retries: int
    on_deploy: OnDeploy | None
    at: float
    share: Share | None = None


class SubmitAll(Record):
    """Several new tasks of one request: all of them, or none if one of them is refused.

    Result: a list of Submitted, in order, or the refusal of that one. It does not affect other
    operations.
    """

    tasks: tuple[Submit, ...]


class Submitted(Record):
    """``created`` is False when the submission id or the key found an earlier task."""

    task: int
    created: bool


class Offer(Record):
    """A worker without a task. ``worker`` is its identity, opaque here (see ``master``); ``runner``
    is the number of its revision."""

    worker: bytes
    runner: int
    revision: str


class Take(Record):
    """queued → running: one ready task of ``queue`` for each of the workers, as far as there are
    any. Result: a list of Taken, in order.

    The tasks are taken in the order of claiming: higher priority first, then owners in turn, each
    owner's tasks in the order in which they became ready. ``routes`` has the kinds that can be run
    here, each with the runner that is to have them; no other kind is looked at. ``alone`` has
    single tasks that have another runner than their kind. After ``room`` bytes of arguments and
    saved state no more are taken (one at least is). No worker that is offered has a task.
    """

    queue: str
    routes: Mapping[Kind, int]
    alone: Mapping[int, int]
    offers: tuple[Offer, ...]
    room: int
    at: float


class Settle(Record):
    """An attempt is over: running → ``state``. Result: Answer.

    If a cancel was asked for, any state but ``succeeded`` becomes ``cancelled``; for a task that
    would have gone on, ``if_cancelled`` is the reason. ``saved`` replaces the saved state, None
    leaves it, b"" drops it; a task that succeeded keeps none in any case. ``saved_version`` is the
    version of ``saved`` (None: the version at submission). ``progress`` None leaves the last one.
    ``budgets`` replaces the counts. Raises ValueError for ``scheduled`` without ``delay``, and for
    a ``state`` that no attempt ends in: both are bugs of the caller.
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
    delay: float | None = None
    progress: dict[str, Any] | None = None
    if_cancelled: str | None = None


class Cancel(Record):
    """Queued, scheduled and held tasks are cancelled at once; for a running one the wish is stored.

    ``owner`` None is an operator; for another owner the task of a third is unknown. An ended task
    stays as it is. Result: Cancelled; Applied.task is None where no event was written.
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

    Result, error, reason, end and the wish to cancel are cleared; attempts go on counting. Refused
    in any other state, and if another live task has taken the task's key meanwhile; an ended task
    that is beyond ``share`` now is refused with LimitReached.
    """

    task: int
    owner: int | None
    at: float
    share: Share | None = None


class HoldKind(Record):
    """queued → held for up to ``limit`` tasks of that kind in ``queue``, since no live revision can
    run it. Result: the list of their ids (Applied.task is None)."""

    queue: str
    kind: Kind
    reason: str
    limit: int
    at: float


class Wake(Record):
    """scheduled → queued for up to ``limit`` tasks whose time has come, the longest due first.

    Result: the list of their ids (Applied.task is None).
    """

    limit: int


class Shift(Record):
    """Every scheduled task is due ``seconds`` later (earlier, if that is negative).

    For a clock that was set. No event is written, since no state changes. Result: how many.
    """

    seconds: float


class Answer:
    """The result of ``Settle``: whether this end counted (the words of the worker protocol).

    ALREADY: this attempt is no longer running. SUPERSEDED: a later attempt exists, or the store
    does not know the task or the attempt.
    """

    RECORDED = "recorded"
    ALREADY = "already recorded"
    SUPERSEDED = "superseded"


Operation = Submit | SubmitAll | Take | Settle | Cancel | Retry | HoldKind | Wake | Shift


class Ended(Record):
    """How the end of an attempt was recorded, a wish to cancel heeded; as in ``Settle``."""

    state: State
    reason: str | None


class Applied(Record):
    """The outcome of one operation: a result, or an errors.Refused (other operations go on).

    ``task``: the task that got an event, or None. Where several got one (SubmitAll, Wake), the
    result names them. ``end``: of a Settle that counted.
    """

    result: Any
    task: int | None
    end: Ended | None = None


class Store(Protocol):
    """The writing side; used by one thread at a time, and by one process.

    Batches are numbered from 1 without a gap, over all openings; a batch that failed leaves its
    number to the next. The outcomes of a batch are stored in its own transaction. A version of
    taskd that does not number its batches (0.2) leaves the number and the outcomes as they are.
    """

    def apply(self, number: int, operations: Sequence[Operation]) -> list[Applied]:
        """All of them in one durable transaction; a refused one harms no other. Results are in the
        order of ``operations``.

        ``number`` is ``last()`` + 1; another raises ValueError, since it is a bug of the caller. So
        does an operation that cannot be; then nothing of the batch happened.

        Raises errors.StoreError if the store cannot commit: nothing of it happened, nor will.
        Raises errors.StoreUnknown if it may have happened. The caller then asks for ``outcome``,
        and while that is None applies the same operations under the same number, and nothing else:
        a store that has said unknown says StoreError of that batch, as long as it is open, only if
        no earlier try of it can come to light, even after a crash.

        A store that several processes write locks in one order, so that no two batches wait for
        each other: first the keys of all submits, by (owner, key), then the tasks, by id. (SQLite
        has one lock, of the whole file.)
        """

    def last(self) -> int:
        """The number of the last batch that is committed, 0 if there was none. Raises StoreError:
        ask again."""

    def outcome(self, number: int) -> list[Applied] | None:
        """What ``apply`` answered, or would have answered, to that batch, if it is the last that is
        committed; else None. To be asked before anything else is applied. Raises StoreError: ask
        again."""

    def checkpoint(self) -> None:
        """Do now what the next opening or closing would have to do. Raises errors.StoreError."""

    def close(self) -> None: ...
