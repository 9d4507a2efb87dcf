"""What is asked of the store: one record a query, with the type of its answer; and ``Reader``.

The master asks with ``storage.ask(query, done)``; ``done`` gets the answer, or a StoreError if the
store cannot be read. SQLite answers within the call. Another store may answer in a later turn of
the loop, and two questions in another order than they were asked: only taskd/store and
taskd/master/loop rely on anything else.

An answer is what is committed at one moment between the question and the answer. It changes
nothing, and no query is refused: what is not there is not found, also a task by an id that none can
have. No answer takes the store long, whatever it holds: a query whose answer has no bound is
answered in parts. A ``Part`` says what was found, perhaps nothing, and with which query to go on
(``next``; None: that was all). Each part is as of a moment of its own. ``place``, in such a query,
is the store's own: where it goes on; None: it begins.

A ``token`` says how much of the events a stream has told. It is opaque, and may be kept for as long
as the store is: over restarts, and by clients. It is as long as the store has writers, however many
tasks the stream is about.

``now`` is the time (Unix seconds) up to which an attempt that still runs counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from taskd.errors import StoreDamaged, StoreError
from taskd.model.retention import Ages
from taskd.model.task import State
from taskd.record import Protocol, Record
from taskd.store.concurrency_api import Said
from taskd.store.values import (
    Attempt,
    Dependency,
    Event,
    Group,
    Kind,
    Limit,
    Obstacle,
    Paused,
    Row,
    Scheduled,
)

A = TypeVar("A")

BEGIN = ""
"""The token of a stream that has told nothing."""

if TYPE_CHECKING:
    from typing import Generic, Self, dataclass_transform

    @dataclass_transform(frozen_default=True)
    class Query(Generic[A]):
        """The base of all queries; ``A`` is the type of the answer."""

        def _replace(self, **changes: Any) -> Self: ...

    class Part(Record, Generic[A]):
        """Some of what was asked for, and the query for the rest (None: that was all)."""

        found: list[A]
        next: Query[Part[A]] | None

else:

    class Query(Record):
        """The base of all queries."""

        __class_getitem__ = classmethod(lambda cls, _: cls)

    class Part(Record):
        """Some of what was asked for, and the query for the rest (None: that was all)."""

        found: list
        next: Query
        __class_getitem__ = classmethod(lambda cls, _: cls)


# ── the values ───────────────────────────────────────────────────────────────────────────────────


class Glance(Record):
    """The little of a task that says who may watch it, and whether it still can change."""

    id: int
    owner: int
    queue: str
    state: State


ARGUMENTS = 2000
"""Bytes of a task's arguments that are told with it."""


AFTER = 10
"""Tasks after which a task comes that are told with it."""


class Told(Record):
    """A task with what is told of it besides its row. ``result``: None unless it succeeded.
    ``args``: its arguments; if they have more than ARGUMENTS bytes, how many.
    ``after``: up to AFTER of the tasks that it comes after, those first that it still waits for.
    ``ran``: seconds that its attempts ran, by its events, without what it waited in between, and
    never below 0; None: it never ran."""

    row: Row
    result: bytes | None
    ran: float | None
    args: bytes | int = b""
    after: tuple[Dependency, ...] = ()


class NextEvent(Record):
    """An event, and the token of a stream that has told it and those before it in the answer."""

    event: Event
    token: str


class Stored(Record):
    """A task's arguments as submitted, and its saved state, if any."""

    task: int
    args: bytes
    saved: bytes | None


class Counts(Record):
    """Tasks by state, in all queues and in some; no number is 0."""

    totals: dict[State, int]
    queues: dict[str, dict[State, int]]


class Candidate(Record):
    """A ready task, and the runner that is to have it (see ``Take``)."""

    task: int
    kind: Kind
    runner: int


class ReadyTasks(Record):
    """What one part has found. ``tasks``: each with its queue. ``unroutable``: kinds of which a
    task is ready in a queue that was looked at, and that ``Ready.routes`` does not have.
    ``blocked``: ready tasks that cannot begin, for Block."""

    tasks: list[tuple[str, Candidate]]
    unroutable: list[tuple[str, Kind]]
    blocked: list[int]


class Filter(Record):
    """Which tasks ``Listed`` finds: those that fit all of it; None: any. ``before``: only ids below
    it. ``limit``: at least 1. ``revision``: which ran it last. ``since``, ``until``: when it was
    submitted, Unix seconds. ``text``: stands in its error, its reason or its arguments, as far as
    these are not long."""

    owner: int | None = None
    state: State | None = None
    queue: str | None = None
    name: str | None = None
    before: int | None = None
    limit: int = 100
    key: str | None = None
    revision: str | None = None
    since: float | None = None
    until: float | None = None
    text: str | None = None


class Size(Record):
    """Bytes of the store's files at rest. ``free``: how many of them hold nothing. ``shrinks``:
    ``Store.shrink`` gives them back; else they are used for what is stored later."""

    total: int
    free: int
    shrinks: bool


# ── the queries ──────────────────────────────────────────────────────────────────────────────────


class Rows(Query[Part[Row]]):
    """The rows of these tasks, in this order, without those that are not known."""

    tasks: tuple[int, ...]


class Glances(Query[Part[Glance]]):
    """A glance at each of these tasks, in this order, without those that are not known."""

    tasks: tuple[int, ...]


class RunningRows(Query[Part[Row]]):
    """The running tasks whose ids are above ``after``, by id."""

    after: int = 0


class Shown(Query[Part[Told]]):
    """These tasks, in this order, without those that are not known. ``only_settled``: without those
    that have still to run as well. The query for the rest has those that are left in ``tasks``."""

    tasks: tuple[int, ...]
    now: float
    only_settled: bool = False
    place: Any = None


class Listed(Query[Part[Told]]):
    """The tasks that the filter finds, newest first, up to its limit, and until they fill ``room``
    bytes (one at least). ``with_results``: else ``Told.result`` is None."""

    filter: Filter
    with_results: bool
    room: int
    now: float
    place: Any = None


class Events(Query[Part[NextEvent]]):
    """The events of these tasks that a stream with that token has not told, each task's in the
    order of their numbers. Who asks again with the token of any of them gets what came after it
    in this answer, and all that is committed later by whatever writer: each once."""

    tasks: tuple[int, ...]
    token: str = BEGIN
    place: Any = None


class QueueCounts(Query[Part[Counts]]):
    """One Counts, in the last part: of all tasks; of the queues in ``names`` (without those that
    never had a task); and of up to ``most`` others, any, in which a task is queued or runs (of each
    these two numbers)."""

    names: frozenset[str]
    most: int
    place: Any = None


class WaitingGroups(Query[Part[Group]]):
    """The groups in which a task waits, each once."""

    place: Any = None


class Startable(Query[Part[str]]):
    """Those of these names of task functions of which a task is queued or scheduled (and not only
    held), each once or more."""

    names: frozenset[str]
    place: Any = None


class Ready(Query[Part[ReadyTasks]]):
    """The first ready tasks of each queue that are not paused, up to its ``places`` (of one that is
    not named there: ``places_elsewhere``; a queue without places is not looked at), in the order
    of claiming (``routes``, and ``alone`` by queue: see ``Take``); the queues by name, beginning
    behind ``after`` and round to it; ``limit`` in all. Each queue is told in one part,
    whose cost grows with the kinds in it."""

    after: str
    places: Mapping[str, int]
    places_elsewhere: int
    routes: Mapping[Kind, int]
    alone: Mapping[str, Mapping[int, int]]
    limit: int
    place: Any = None


class StoredData(Query[Part[Stored]]):
    """What is stored of these tasks, in this order, without those that are not known."""

    tasks: tuple[int, ...]


class AttemptsOf(Query[Part[Attempt]]):
    """The attempts of the task that are kept, and the one that runs, in order, with numbers above
    ``after``."""

    task: int
    after: int = 0


class Expired(Query[Part[int]]):
    """Up to ``limit`` tasks that a Purge with these ``ages`` would remove (see ``Prepare``)."""

    ages: Ages
    limit: int
    place: Any = None


class Purged(Query[Part[int]]):
    """Up to ``limit`` purged tasks of which a Forget would remove something (see ``Prepare``)."""

    limit: int


class Removed(Query[Part[int]]):
    """Those of these ids that were a task's once and are none any more."""

    tasks: tuple[int, ...]


class StoreSize(Query[Size]):
    """How large the store is."""


class NextDue(Query[float | None]):
    """In how many seconds, by the store's clock, the first scheduled task is due, a pause or a
    concurrency for now ends, or a task expires (0: now); None: nothing of the kind is to come."""

    """In how many seconds, by the store's clock, the first scheduled task is due, a pause ends,
    a task expires, or a rate lets another one start (0: now); None: nothing of these is to come."""


class Pauses(Query[list[Paused]]):
    """What is paused, by queue and name; what ended by itself just now may be among it."""


class Concurrencies(Query[list[Said]]):
    """What operators have said of queues, by queue; what is over just now may be among it."""


class Schedules(Query[list[Scheduled]]):
    """Every schedule, by name; dropped ones too, as long as they are remembered."""


class LimitsInForce(Query[list[Limit]]):
    """Every Limit, by name."""


class WhyBlocked(Query[Obstacle | None]):
    """The first obstacle of this queued task; None: no limit keeps it (or it is not queued)."""

    task: int


# ── who answers ──────────────────────────────────────────────────────────────────────────────────


class Reader(Protocol):
    """The reading side of a store, used in the loop's thread."""

    damage: StoreDamaged | None
    """Set for good as soon as a query finds that the store is damaged."""

    def ask(self, query: Query[A], done: Callable[[A | StoreError], None]) -> None:
        """Answer ``query``: ``done`` is called once, within this call or later in the loop."""

    def token(self, named: int | str) -> str | None:
        """The token that a client names; None if it is none of this store's. A number is that of
        an event of a store with one writer (0.2 knows no others): all up to it were told."""

    def close(self) -> None: ...
