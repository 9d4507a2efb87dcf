"""Which tasks have been over for long enough to be purged, and what is left of purged ones.

Runs in the master's loop. The oldest of each queue and final state is found by ``tasks_ended``, so
that tasks that are kept for longer stand in nobody's way.
"""

from __future__ import annotations

from math import isinf

from taskd.model.task import ENDED, State
from taskd.store import schema
from taskd.store.meter import AT_ONCE, ROW, WORK, Fetch, Meter
from taskd.store.queries import Expired, Part, Purged, Removed

_STATES = sorted(state.value for state in ENDED)

_QUEUES = (
    "select queue from counts indexed by counts_not_empty"
    f" where {schema.NOT_EMPTY} and state = ? and queue > ? order by queue limit ?"
)
_OLDEST = (
    "select id from tasks indexed by tasks_ended"
    f" where state = ? and queue = ? and ended <= store_clock() - ? and not {schema.IS_AWAITED}"
    " order by ended limit ?"
)
_LEFT = "select task from purged indexed by purged_left where is_left = 1 order by task limit ?"
_DUE = (
    "select task from purged indexed by purged_until"
    " where is_left = 0 and until <= store_clock() order by until limit ?"
)
_LAST = "select seq from sqlite_sequence where name = 'tasks'"
_THERE = "select id from tasks where id in (select value from json_each(?))"


def expired(fetch: Fetch, query: Expired) -> Part[int]:
    """``place``: the number of the state to go on with, and its last queue that was looked at."""
    found: list[int] = []
    first, behind = query.place or (0, "")
    meter = Meter()
    for number in range(first, len(_STATES)):
        state = _STATES[number]
        while True:
            queues = [queue for (queue,) in fetch(_QUEUES, state, behind, AT_ONCE)]
            meter.read(ROW + len(queues))
            for queue in queues:
                behind = queue
                age = query.ages.of(queue, State(state))
                if not isinf(age):
                    oldest = fetch(_OLDEST, state, queue, age, query.limit - len(found))
                    meter.read(ROW + len(oldest))
                    found += [task for (task,) in oldest]
                if len(found) >= query.limit:
                    return Part(found, None)
                if meter.is_used_up:
                    rest = query._replace(limit=query.limit - len(found), place=(number, behind))
                    return Part(found, rest)
            if len(queues) < AT_ONCE:
                break
        behind = ""
    return Part(found, None)


def purged(fetch: Fetch, query: Purged) -> Part[int]:
    found = [task for (task,) in fetch(_LEFT, query.limit)]
    if len(found) < query.limit:
        found += [task for (task,) in fetch(_DUE, query.limit - len(found))]
    return Part(found, None)


def removed(fetch: Fetch, query: Removed) -> Part[int]:
    """No id is given twice, and none is left out."""
    some, rest = query.tasks[:WORK], query.tasks[WORK:]
    last = next((number for (number,) in fetch(_LAST)), 0)
    given = [task for task in some if schema.is_id(task) and task <= last]
    there = {task for (task,) in fetch(_THERE, str(given))}
    found = [task for task in given if task not in there]
    return Part(found, Removed(rest) if rest else None)
