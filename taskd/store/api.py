"""The store's contract: the operations that change it, the values it returns, and Store.

The store is used in the master alone, which is the only writer. The writer thread (``writer``)
calls ``Store.apply`` with all operations that have gathered: one transaction and one sync for all.
What is asked of it stands in ``queries``; new tasks in ``submit_api``, what is done by hand in
``steering_api``, schedules in ``schedule_api``, limits in ``limit_api``. tests/contract holds a
store to these files.

Of every operation:

* It is done as its docstring says, or refused: then its result is an errors.Refused, of the class
  that the docstring names (else of that one itself), and it has changed nothing.
* A state changes by ``model.task.CHANGES`` alone, and only from the state that is named before the
  arrow. Each change writes one numbered event in the same transaction: ``at``, the new state, the
  number and the revision of the last attempt (0 and None before the first), and the operation's
  ``reason``, if it has one. Nothing else but NoteSilence writes events.
* A task is *over* once it is succeeded, failed or cancelled; one that is held is not over. A key is
  its task's until that is over (or longer: ``Submit.key_for``), within the tasks of one owner. A
  submission id is known as long as its task is there, and for HORIZON after the task was over.
* Counts are exact after every batch: tasks by queue and state; by group, those that wait (queued,
  scheduled or held); by owner, those that are not over, and the bytes of their arguments.
* What is due is decided by the store's own clock alone: who submits or ends says how many seconds
  later (``delay``). ``at`` is when that was, for events and views.
* An id that no task has, also one that none can have (0, 1 << 70), is an unknown task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from taskd.model.retention import Ages
from taskd.model.task import Budgets, State
from taskd.record import Protocol, Record
from taskd.store.concurrency_api import SetConcurrency
from taskd.store.limit_api import Block, Release, TakeUpLimits
from taskd.store.schedule_api import Due, PauseSchedule, ResumeSchedule, RunNow, TakeUp
from taskd.store.steering_api import (
    Alter as Alter,
    Cancel as Cancel,
    Cancelled as Cancelled,
    Retry as Retry,
)
from taskd.store.submit_api import (
    HORIZON as HORIZON,
    Share as Share,
    Submit as Submit,
    SubmitAll as SubmitAll,
    Submitted as Submitted,
)
from taskd.store.values import Kind, Scope

SCHEMA = 1
"""Version of the schema; it only grows within a major version of taskd."""


PAUSES = 1000
"""Scopes that may be paused at a time."""


class Offer(Record):
    """A worker without a task. ``worker`` is its identity, opaque here (see ``master``); ``runner``
    is the number of its revision."""

    worker: bytes
    runner: int
    revision: str


class Take(Record):
    """queued → running: one ready (queued, not blocked) task of ``queue`` for each of the workers,
    as far as there are any that limits let begin (see ``limit_api``). Result: a list of Taken, in
    the order of claiming. Never refused.

    ``routes`` has the kinds that can be run here, each with the runner that is to have them; no
    other kind is looked at. ``alone`` has single tasks that have another runner than their kind;
    those that are not ready in ``queue`` are passed over. A runner of which no worker is left holds
    up none of the others. After ``room`` bytes of arguments and saved state no more are taken (one
    at least is). No worker that is offered has a task.

    A task that is taken begins its next attempt, with its worker and that worker's ``revision``;
    ``started`` is set if it is the first one, and ``reason`` cleared.

    The order of claiming: higher priority first, then lower turns, then lower ids. A task gets its
    turn when it becomes ready: one more than the highest of its owner's ready tasks in that queue
    at that priority, those that have begun counted apart from those that have not; and no less
    than the lowest turn of any ready task there. So owners take turns, who comes late is next, and
    a task that comes back waits for nothing that its owner has submitted since.
    """

    queue: str
    routes: Mapping[Kind, int]
    alone: Mapping[int, int]
    offers: tuple[Offer, ...]
    room: int
    at: float


class Settle(Record):
    """An attempt is over: running → ``state``. Result: Answer; nothing is changed but by RECORDED.

    If a cancel was asked for, any state but ``succeeded`` becomes ``cancelled``; for a task that
    would have gone on, ``if_cancelled`` is the reason then (Applied.end tells both). ``saved``
    replaces the saved state, None leaves it, b"" drops it; a task that succeeded keeps none in any
    case. ``saved_version`` is the version of ``saved`` (None: the version at submission), and
    decides the group that the task waits in. ``progress`` None leaves the last one; ``budgets``,
    ``error`` and ``reason`` replace what was there. ``result`` is kept if the task succeeded.
    ``delay``: after how many seconds a scheduled task is due. ``moves``: a queued task did not come
    to an end but was asked to go on elsewhere, which no pause keeps it from; None: as it was when
    this attempt was taken. ``used``: seconds that the try has run so far, which the next attempt is
    told as ``Row.used``; None: the try is over.

    Of the attempt itself is kept how it ended (``how``; None: as ``state`` says; after a wish that
    made the task cancelled, ``cancelled``, unless it failed or crashed), with ``reason``, ``delay``
    and ``error``, or the error that it ended with and that is no failure of the task
    (``passing``): see ``values.Attempt``.

    For an attempt that runs, raises ValueError for ``scheduled`` without a ``delay`` (or one that
    is no number), and for a ``state`` that no attempt ends in: both are bugs of the caller.
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
    moves: bool | None = False
    how: str | None = None
    passing: dict[str, Any] | None = None
    used: float | None = None


class NoteTimeout(Record):
    """This attempt was told that its time is over: ``Row.timed_out``, until the next one begins.
    Result: whether it still runs. No event is written."""

    task: int
    attempt: int


class NoteSilence(Record):
    """This attempt has reported nothing for as long as ``why`` says: one event ``running`` with it
    as the reason, unless that was written since it last reported (``why`` None). Result: whether
    one was. Nothing is changed if the attempt runs no more."""

    task: int
    attempt: int
    why: str | None
    at: float


class HoldKind(Record):
    """queued → held, with ``reason``, for up to ``limit`` tasks of that kind in ``queue``, in the
    order of claiming, since no live revision can run it. Result: the list of their ids."""

    queue: str
    kind: Kind
    reason: str
    limit: int
    at: float


class Wake(Record):
    """scheduled → queued for up to ``limit`` tasks whose time has come, the longest due first; the
    events' ``at`` is the store's clock. Result: the list of their ids."""

    limit: int


class CancelExpired(Record):
    """queued, scheduled, held → cancelled, with the reason, for up to ``limit`` tasks that have
    never started and whose time for that (``Submit.expires``) is over, by the store's clock, which
    also gives the events' ``at``; the longest over first. Result: the list of their ids."""

    limit: int


class GoOn(Record):
    """Tell up to ``limit`` waiting tasks (``Submit.after``) of ends that they were not told of in
    the transaction that wrote these, and cancel children (``Submit.parent``) of cancelled tasks.
    Result: the list of their ids: they may have been queued,
    scheduled for their own time, or cancelled."""

    limit: int


class Recheck(Record):
    """What a version of taskd that knows no order (0.2) has ended is to be told by GoOn; ``limit``
    tasks with a higher id than ``after`` that others wait for are looked at. Result: the last of
    these; None: those were all."""

    after: int
    limit: int


class Shift(Record):
    """Every scheduled task is due ``seconds`` later (earlier, if that is negative), but those that
    are due when their submission said (``Submit.due``); and every pause that ends by itself ends so
    much later, as do the time within which a task must start and that for which a key is kept.

    For a clock that was set. No event is written, since no state changes. Result: how many tasks
    are due later.
    """

    seconds: float


class Prepare(Record):
    """Make what Purge, Forget and their queries need, where an earlier version made the store: an
    index over all tasks that are over, which takes a second for each million of them. What waits
    behind a task that such a version has ended is let go.

    Result: for how many seconds more nothing should be purged for its age: ``grace`` from the first
    Prepare on; 0 in a store that this version has made.
    """

    grace: float


class Purge(Record):
    """Remove those of ``tasks`` that are over, for at least as long as ``ages`` says (None: however
    short), by the store's clock, and that none waits for; pass over all others. Result: the list of
    the ids of those that were removed, in the order of ``tasks``. Never refused.

    A task that is removed is an unknown task, and counted nowhere. No event is written. Its row,
    arguments, saved state and result are gone; ``Purged`` names it until Forget has removed the
    rest. After ``room`` bytes of these values no more are removed (one task at least is).
    """

    tasks: tuple[int, ...]
    ages: Ages | None
    room: int


class Forget(Record):
    """Nothing outside the store is left of these purged tasks: remove their events, and their
    submission ids HORIZON after they were over; ``limit`` rows at most. Result: the list of the ids
    of those of which nothing more is to be removed now. Never refused; others are passed over."""

    tasks: tuple[int, ...]
    limit: int


class Pause(Record):
    """Of the tasks in ``scope`` none is taken any more, but those that ran and move (see Settle).
    Result: whether the scope was not paused; else that pause is replaced. No task changes, and no
    event is written. ``seconds``: it is over by itself after these (None: by Resume alone). No task
    needs to have the name. Refused where PAUSES others are in force.
    """

    scope: Scope
    by: int
    at: float
    seconds: float | None
    why: str


class Resume(Record):
    """The pause of exactly that ``scope`` is over. Result: whether there was one. While everything
    was paused, no schedule had a slot."""

    scope: Scope


class Answer:
    """The result of ``Settle``: whether this end counted (the words of the worker protocol).

    ALREADY: this attempt is no longer running. SUPERSEDED: a later attempt exists, or the store
    does not know the task or the attempt.
    """

    RECORDED = "recorded"
    ALREADY = "already recorded"
    SUPERSEDED = "superseded"


Operation = (
    Submit | SubmitAll | Take | Settle | Cancel | Retry | Alter | HoldKind | Wake | Shift
    | CancelExpired | NoteTimeout | NoteSilence | Prepare | Purge | Forget | Pause | Resume
    | GoOn | Recheck | TakeUpLimits | Release | Block | SetConcurrency
    | TakeUp | Due | RunNow | PauseSchedule | ResumeSchedule
)  # fmt: skip


class Ended(Record):
    """How the end of an attempt was recorded, a wish to cancel heeded; as in ``Settle``."""

    state: State
    reason: str | None


class Applied(Record):
    """The outcome of one operation: its result, or an errors.Refused.

    ``task``: the task of which Submit, Settle, Cancel, Retry or Alter has written an event, else
    None. Where there may be several, the result names them. ``also``: other tasks that may have an
    event by it. ``asked``: running tasks that
    are to be cancelled, as if by Cancel. ``end``: of a Settle that counted.
    """

    result: Any
    task: int | None
    end: Ended | None = None
    also: tuple[int, ...] = ()
    asked: tuple[int, ...] = ()


class Store(Protocol):
    """The writing side; used by one thread at a time, and by one process.

    Batches are numbered from 1 without a gap, over all openings; a batch that failed leaves its
    number to the next. The outcomes of a batch are stored in its own transaction. A version of
    taskd that does not number its batches (0.2) leaves the number and the outcomes as they are.
    """

    def apply(self, number: int, operations: Sequence[Operation]) -> list[Applied]:
        """All of them in one durable transaction, each on what those before it have left; a refused
        one harms no other. Results are in the order of ``operations``.

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
        committed; else None. The rows of tasks that were taken are as the whole batch has left
        them. To be asked before anything else is applied. Raises StoreError: ask again."""

    def checkpoint(self) -> None:
        """Do now what the next opening or closing would have to do. Raises errors.StoreError."""

    def shrink(self, size: int) -> None:
        """Give about so many bytes that the store does not use back to the file system, if it can
        (see ``queries.StoreSize``). Raises errors.StoreError."""

    def compact(self) -> None:
        """Write the store's files anew, as small as they can be, which takes long; from then on
        ``shrink`` works. Raises errors.StoreError."""

    def close(self) -> None: ...
