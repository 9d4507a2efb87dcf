"""Which ready tasks of a queue are next, of those that can be run here.

Runs in the loop (to know which workers are wanted) and in the writer thread (to take them). The
index ``tasks_kind`` has the ready tasks of each queue and kind in the order of claiming, so that
tasks of a kind that cannot be run here cost one look-up, however many wait. The heads of the kinds
are merged. ``ready`` is answered in parts: between two queues, and while it looks for the kinds of
one. What is read for a kind tells its head too, so that the last part merges no more kinds than it
has places.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

from taskd.record import Record
from taskd.store import limiting, pausing, schema
from taskd.store.meter import Fetch, Meter
from taskd.store.queries import Candidate, Part, Ready, ReadyTasks
from taskd.store.values import Kind

_NAME = (
    "select name, saved_version, -priority, turn, id from tasks indexed by tasks_kind"
    f" where queue = ? and {schema.OPEN} and name > ?"
    " order by name, saved_version, priority desc, turn, id limit 1"
)
_SAVED = (
    "select saved_version, -priority, turn, id from tasks indexed by tasks_kind"
    f" where queue = ? and {schema.OPEN} and name = ? and saved_version > ?"
    " order by saved_version, priority desc, turn, id limit 1"
)
_OF_KIND = (
    "select -priority, turn, id from tasks indexed by tasks_kind"
    f" where queue = ? and {schema.OPEN} and name = ? and saved_version is ?"
    " order by priority desc, turn, id limit ? offset ?"
)
_ALONE = (
    "select -priority, turn, id, name, saved_version from tasks"
    f" where id = ? and queue = ? and {schema.OPEN}"
)

_HEAD = (
    "select id, name, saved_version, blocked from tasks indexed by tasks_turn"
    f" where queue = ? and {schema.READY} order by priority desc, turn, id limit ?"
)
_QUEUES = (
    "select queue from counts indexed by counts_not_empty"
    f" where {schema.NOT_EMPTY} and state = 'queued' and queue > ? and queue <= ?"
    " order by queue limit ?"
)
_PAGE = 64
_LAST = "\U0010ffff"  # sorts behind every name of a queue

_LOOK = 2
"""What a look-up costs, beside what it finds."""

_LIMITED = 6
"""What it costs to make sure that a task may begin."""

_FEWEST = 4
"""Tasks of a kind that one statement reads at least."""

_Place = tuple[int, int, int]  # how a task is sorted: priority, turn, id


class Head(Record):
    """A kind, and where its first ready task stands."""

    place: _Place
    kind: Kind


class _Reached(Record):
    """Where a part has stopped. ``kinds``: those of the queue that are known; None: it is done.
    ``tasks``, ``unroutable``: how many of each were told so far."""

    queue: str
    kinds: list[Head] | None
    tasks: int
    unroutable: int


def kinds(fetch: Fetch, queue: str, last: Kind | None = None) -> Iterator[Head]:
    """The kinds of which a task is ready in ``queue``, behind ``last``."""
    name, saved = last or ("", None)
    while last is not None or (found := fetch(_NAME, queue, name)):
        if last is None:
            ((name, saved, *place),) = found
            yield Head(tuple(place), Kind(name, saved))
        last = None
        # A null comes before all numbers, and no version is below 0.
        while found := fetch(_SAVED, queue, name, -1 if saved is None else saved):
            ((saved, *place),) = found
            yield Head(tuple(place), Kind(name, saved))


def ready(fetch: Fetch, query: Ready) -> Part[ReadyTasks]:
    """A part of the answer to ``query``. No more tasks than its limit are found, and hardly more
    read."""
    answer, meter = ReadyTasks([], [], []), Meter()

    def counted(sql: str, *values: Any) -> list[tuple[Any, ...]]:
        found = fetch(sql, *values)
        meter.read(_LOOK + len(found))
        return found

    reached = query.place or _Reached("", None, 0, 0)

    def told() -> tuple[int, int]:
        return reached.tasks + len(answer.tasks), reached.unroutable + len(answer.unroutable)

    def part(queue: str, kinds: list[Head] | None) -> Part[ReadyTasks]:
        return Part([answer], query._replace(place=_Reached(queue, kinds, *told())))

    paused, budget = pausing.in_force(fetch), limiting.budget(fetch)
    if budget is not None:
        paused = budget.closed(paused)
    for queue, known in _in_turn(counted, query.after, query.place):
        places = query.places.get(queue, query.places_elsewhere)
        places = min(places, query.limit - told()[0])
        if places > 0:
            waiting = list(known)
            for each in kinds(counted, queue, waiting[-1].kind if waiting else None):
                waiting.append(each)
                if meter.is_used_up:
                    return part(queue, waiting)
            answer.unroutable.extend(
                (queue, kind) for _, kind in waiting if kind not in query.routes
            )
            of_these = {kind: query.routes[kind] for _, kind in waiting if kind in query.routes}
            alone = query.alone.get(queue, {})
            routes, alone = pausing.left(counted, paused, queue, of_these, alone)
            heads = (head for head in waiting if head.kind in routes)
            # Those that a limit keeps from beginning may stand before others.
            more = 0 if budget is None else limiting.BLOCKED
            best = heapq.nsmallest(places + len(alone) + more, heads)
            routes = {kind: routes[kind] for _, kind in best}
            if budget is None:
                found = in_order(counted, queue, routes, alone, places)
                answer.tasks.extend((queue, each) for each in islice(found, places))
            else:
                admission = limiting.Admission(budget, queue)
                is_open = lambda each, a=admission: a.is_open(each.task, each.kind.name)  # noqa: E731
                found = admission.those(in_order(counted, queue, routes, alone, places, is_open))
                answer.tasks.extend((queue, each) for each in islice(found, places))
                meter.read(_LIMITED * len(admission.begun))
                answer.blocked.extend(admission.blocked)
        if max(told()) >= query.limit:
            break
        if meter.is_used_up:
            return part(queue, None)
    return Part([answer], None)


def _in_turn(
    fetch: Fetch, after: str, reached: _Reached | None
) -> Iterator[tuple[str, list[Head]]]:
    """The queues in which a task is ready, beginning behind ``after``, or where a part before has
    stopped; each with what is known of its kinds."""
    spans = [(after, _LAST), ("", after)]
    if reached is not None:
        if reached.kinds is not None:
            yield reached.queue, reached.kinds
        is_round = reached.queue <= after
        spans = [(reached.queue, after)] if is_round else [(reached.queue, _LAST), ("", after)]
    for first, last in spans:
        while first < last:
            page = fetch(_QUEUES, first, last, _PAGE)
            for (queue,) in page:
                yield queue, []
            first = page[-1][0] if len(page) == _PAGE else last


def head(
    fetch: Fetch, queue: str, routes: Mapping[Kind, int], alone: Mapping[int, int], count: int
) -> list[Candidate]:
    """The first ``count`` ready tasks of all, up to the first that is blocked or has no route: as
    far as they go, the answer of ``in_order``, for one look-up."""
    found = []
    for task, name, saved_version, blocked in fetch(_HEAD, queue, count):
        if blocked is not None:
            break
        kind = Kind(name, saved_version)
        runner = alone[task] if task in alone else routes.get(kind)
        if runner is None:
            break
        found.append(Candidate(task, kind, runner))
    return found


def in_order(
    fetch: Fetch,
    queue: str,
    routes: Mapping[Kind, int],
    alone: Mapping[int, int],
    count: int,
    is_wanted: Callable[[Candidate], bool] = lambda _: True,
) -> Iterator[Candidate]:
    """The ready tasks of the kinds in ``routes`` (of which one is ready: else each costs a
    look-up), with the runner of each; those in ``alone`` go to the runner that is given there,
    whatever their kind. A kind is left, with all that waits behind, once ``is_wanted`` says no to
    one of it. ``count``: about how many are needed. The caller changes no task meanwhile."""
    size = max(_FEWEST, count // max(1, len(routes)))
    sources = [_of_kind(fetch, queue, *route, alone, size) for route in routes.items()]
    sources.append(_alone(fetch, queue, alone))
    heap: list[tuple[_Place, int, Candidate]] = []
    for number, source in enumerate(sources):
        for place, candidate in source:
            heap.append((place, number, candidate))
            if number < len(routes):
                break  # the next ones come when this one is taken
    heapq.heapify(heap)
    while heap:
        _, number, candidate = heapq.heappop(heap)
        if not is_wanted(candidate):
            continue
        yield candidate
        for place, follower in islice(sources[number], 1):
            heapq.heappush(heap, (place, number, follower))


_Source = Iterator[tuple[_Place, Candidate]]


def _of_kind(
    fetch: Fetch, queue: str, kind: Kind, runner: int, alone: Mapping[int, int], size: int
) -> _Source:
    offset = 0
    while page := fetch(_OF_KIND, queue, *kind, size, offset):
        for place in page:
            if place[2] not in alone:
                yield place, Candidate(place[2], kind, runner)
        offset += size


def _alone(fetch: Fetch, queue: str, alone: Mapping[int, int]) -> _Source:
    for task, runner in alone.items():
        for *place, name, saved in fetch(_ALONE, task, queue) if schema.is_id(task) else ():
            yield tuple(place), Candidate(task, Kind(name, saved), runner)
