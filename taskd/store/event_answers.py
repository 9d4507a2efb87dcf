"""The events of one task or of many, in the order of their numbers: ``queries.Events`` in parts.

SQLite has one writer at a time, which numbers the events of all tasks in the order of its commits:
the token of a stream is the number of the last event that it told.

Runs in the master's loop. Of one task, its index gives them in order. Of many tasks, most of which
have none, two ways lead to the next events: through the events of all tasks, if there are few since
the last one asked for; else by a look at each task.
"""

from __future__ import annotations

from typing import Any

from taskd.model.task import State
from taskd.record import Record
from taskd.store import schema
from taskd.store.meter import AT_ONCE, FEW, ROW, WORK, Fetch, Meter
from taskd.store.queries import BEGIN, Events, NextEvent, Part
from taskd.store.values import Event

_LOOK = 2
"""What a look at the index of one task costs."""

KEPT = 500
"""Events whose numbers are gathered in one go over all tasks."""

_EVENT = "select number, task, at, state, attempt, revision, reason from events"
_EVENTS = f"{_EVENT} indexed by events_task where task = ? and number > ? order by number limit ?"
_THESE = f"{_EVENT} where number in (select value from json_each(?)) order by number"
_LAST = "select coalesce(max(number), 0) from events"
_NUMBERED = "select number, task from events where number > ? order by number limit ?"
_NUMBERS = (  # of each of some tasks
    "select (select group_concat(number) from (select number from events indexed by events_task"
    " where task = value and number > ? and number <= ? order by number limit ?))"
    " from json_each(?)"
)


class _First(Record):
    """The first events of many tasks, while task after task is looked at: up to the ``looked``-th.
    ``until``: the last that is looked for; ``numbers``: those found so far, KEPT at most. ``end``:
    the last event when that began."""

    looked: int
    until: int
    numbers: list[int]
    end: int


class _Found(Record):
    """The numbers of events that are still to be read."""

    numbers: list[int]


def token(named: int | str) -> str | None:
    """The token that a client names, if it is one (see ``queries.Reader``)."""
    if isinstance(named, int):
        return str(named)
    is_number = named.isascii() and named.isdigit() and len(named) < 20
    return named if is_number or named == BEGIN else None


def _told(token: str) -> int:
    """The number of the last event that a stream with that token has told."""
    return min(int(token or 0), schema.LARGEST)


def _event(found: tuple[Any, ...], meter: Meter) -> NextEvent:
    meter.read(2, found[6])
    event = Event._make((*found[:3], State(found[3]), *found[4:]))
    return NextEvent(event, str(event.number))


def events(fetch: Fetch, query: Events) -> Part[NextEvent]:
    after = _told(query.token)
    if len(query.tasks) == 1:
        return _events_of_one(fetch, query.tasks[0], after)
    if isinstance(query.place, _Found):
        numbers = query.place.numbers
        return _read(fetch, query, numbers, _beyond(query, numbers[-1]))
    if query.place is None:
        until = fetch(_LAST)[0][0]
        if until <= after:
            return Part([], None)
        if until - after <= max(WORK, ROW * len(query.tasks)):
            return _events_among_all(fetch, query, after)
    return _first_events(fetch, query, query.place or _First(0, until, [], until))


def _beyond(query: Events, number: int) -> Events:
    """The same query for what comes after that event."""
    return query._replace(token=str(number), place=None)


def _events_of_one(fetch: Fetch, task: int, after: int) -> Part[NextEvent]:
    events: list[NextEvent] = []
    meter = Meter()
    while not meter.is_used_up:
        some = fetch(_EVENTS, task, after, FEW) if schema.is_id(task) else []
        meter.read(ROW)
        events += [_event(each, meter) for each in some]
        if len(some) < FEW:
            return Part(events, None)
        after = events[-1].event.number
    return Part(events, Events((task,), str(after)))


def _events_among_all(fetch: Fetch, query: Events, after: int) -> Part[NextEvent]:
    """The tasks' events among the next of all tasks: for a stream that is nearly up to date."""
    wanted, some = set(query.tasks), fetch(_NUMBERED, after, WORK)
    numbers = [number for number, task in some if task in wanted]
    if len(some) < WORK:
        return _read(fetch, query, numbers)
    if not numbers:
        return Part([], _beyond(query, some[-1][0]))
    return _read(fetch, query, numbers, _beyond(query, some[-1][0]))


def _first_events(fetch: Fetch, query: Events, place: _First) -> Part[NextEvent]:
    """The first events of tasks that may be few among all: by a look at each of the tasks. A task
    with many events makes ``until`` lower, so that all of them are known up to there. What is
    committed meanwhile has higher numbers."""
    looked, until, known_before, end = place
    numbers = list(known_before)
    after, meter = _told(query.token), Meter()
    while looked < len(query.tasks) and not meter.is_used_up:
        some = query.tasks[looked : looked + FEW]
        known = str([task for task in some if schema.is_id(task)])
        for (joined,) in fetch(_NUMBERS, after, until, AT_ONCE, known):
            more = [int(number) for number in (joined or "").split(",") if number]
            meter.read(_LOOK + len(more))
            numbers += more
            if len(more) == AT_ONCE:
                until = min(until, more[-1])
        meter.read(ROW)
        looked += len(some)
        if len(numbers) >= KEPT:
            numbers, until = _lowest(numbers, until)
    numbers, until = _lowest(numbers, until)
    if looked < len(query.tasks):
        return Part([], query._replace(place=_First(looked, until, numbers, end)))
    rest = _beyond(query, until) if until < end else None
    return _read(fetch, query, numbers, rest, meter)


def _lowest(numbers: list[int], until: int) -> tuple[list[int], int]:
    """Those up to ``until``, KEPT of them at most, and the last that need be looked for."""
    lowest = sorted({number for number in numbers if number <= until})[:KEPT]
    return lowest, lowest[-1] if len(lowest) == KEPT else until


def _read(
    fetch: Fetch,
    query: Events,
    numbers: list[int],
    rest: Events | None = None,
    meter: Meter | None = None,
) -> Part[NextEvent]:
    """The events of these numbers; ``rest``: what is to be asked after all of them."""
    events: list[NextEvent] = []
    meter = meter or Meter()
    for start in range(0, len(numbers), FEW):
        if start and meter.is_used_up:
            place = _Found(numbers[start:])
            return Part(events, query._replace(token=str(numbers[start - 1]), place=place))
        found = fetch(_THESE, str(numbers[start : start + FEW]))  # a list of numbers is JSON
        meter.read(ROW)
        events += [_event(each, meter) for each in found]
    return Part(events, rest)
