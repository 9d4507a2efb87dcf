"""What limits let begin: the numbers, who holds which key, and a budget for one look or one Take.

Runs in the loop (to know which workers are wanted) and in the writer thread (to take tasks), from
the same rows.

* ``limits``: the numbers by name (see ``limit_api``). Without a row in it, limits cost nothing.
* Who holds a key follows from the rows of tasks that run or move; nothing counts for itself.
* ``limit_rates``: of each key, when the next start would be exactly in time (GCRA); written with
  the claim, never further ahead than a burst lasts, whatever the clock did.

All tasks of a name have the same key, as have all of a queue; so a full one closes the name or the
queue, as a pause does, and blocks no row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from taskd.record import Record
from taskd.store import schema
from taskd.store.limit_api import QUEUE, TASK
from taskd.store.meter import Fetch
from taskd.store.pausing import InForce
from taskd.store.queries import Candidate, WhyBlocked
from taskd.store.values import HOLDERS, Holder, Limit, Obstacle

BLOCKED = 200
"""Tasks that cannot begin, of which one look or one Take makes sure at most."""

_LIMITS = "select name, concurrency, every, burst, source, dropped from limits order by name"
_RUNNING = (
    "select id, name, limits from tasks indexed by tasks_state where state = 'running'"
    " union all select id, name, limits from tasks indexed by tasks_moving"
    f" where {schema.MOVING} and moves = attempt"
)
_WISH = (
    "select id, name, queue, limits, used_upto is not attempt or used is null,"
    " ifnull(moves = attempt, 0) from tasks where id = ? and state = 'queued'"
)
_NEXT = "select next - store_clock() from limit_rates where key = ?"
_FIRST_WAIT = (
    "select at - store_clock() from limit_waits indexed by limit_waits_at order by at limit 1"
)
_HOLDERS = (
    "select id, name, limits, revision, state != 'running', started from tasks"
    " indexed by tasks_state where state = 'running'"
    " union all select id, name, limits, revision, state != 'running', started from tasks"
    f" indexed by tasks_moving where {schema.MOVING} and moves = attempt order by 6, 1"
)


def keys_of(limits: str | None) -> list[str]:
    """Those that a task carries, from ``tasks.limits``."""
    return [] if limits is None else limits.split("\n")


def name_of(key: str) -> str:
    """The name of the Limit that has the numbers of ``key``."""
    return key if key.startswith("=") else key.partition(":")[0]


def in_force(fetch: Fetch) -> dict[str, Limit]:
    return {row[0]: Limit._make((*row[:5], bool(row[5]))) for row in fetch(_LIMITS)}


class Holders:
    """Which tasks hold which keys. ``held``: how many of them each key."""

    __slots__ = ("_keys", "held")

    def __init__(self, fetch: Fetch) -> None:
        self._keys: dict[int, list[str]] = {}
        self.held: Counter[str] = Counter()
        for task, name, limits in fetch(_RUNNING):
            self.add(task, name, limits)

    def __contains__(self, task: int) -> bool:
        return task in self._keys

    def add(self, task: int, name: str, limits: str | None) -> None:
        if task not in self._keys:
            self._keys[task] = [TASK + name, *keys_of(limits)]
            self.held.update(self._keys[task])

    def drop(self, task: int) -> list[str]:
        """The keys that it held."""
        keys = self._keys.pop(task, [])
        self.held.subtract(keys)
        for key in keys:
            if not self.held[key]:
                del self.held[key]
        return keys


class Wish(Record):
    """A queued task that may begin. ``counts``: it is a first start, which a rate counts;
    ``moves``: it holds its keys."""

    task: int
    name: str
    queue: str
    limits: str | None
    counts: bool
    moves: bool

    @property
    def keys(self) -> list[str]:
        return [QUEUE + self.queue, TASK + self.name, *keys_of(self.limits)]


class Begun(Record):
    """A task that begins; ``rates``: of each key whose rate counts it, in how many seconds the next
    start would be exactly in time."""

    wish: Wish
    rates: dict[str, float]


class Full(Record):
    """``key`` lets nothing begin. ``wait``: for so many seconds, as its rate has it; None: until a
    holder's end."""

    key: str
    wait: float | None


class Budget:
    """What may begin in one look or one Take; ``spend`` what does. Rates are kept as seconds from
    now."""

    __slots__ = ("_fetch", "_holders", "_limits", "_next", "spent")

    def __init__(self, fetch: Fetch, limits: Mapping[str, Limit], holders: Holders) -> None:
        self._fetch = fetch
        self._limits = limits
        self._holders = holders
        self._next: dict[str, float] = {}
        self.spent: Counter[str] = Counter()

    def wish(self, task: int) -> Wish | None:
        """None: it is not queued."""
        found = self._fetch(_WISH, task) if schema.is_id(task) else []
        return Wish._make((*found[0][:4], bool(found[0][4]), bool(found[0][5]))) if found else None

    def limit(self, key: str) -> Limit | None:
        return self._limits.get(name_of(key))

    def free(self, key: str) -> int:
        """How many tasks more may hold ``key``, as far as numbers go."""
        limit = self.limit(key)
        if limit is None or limit.concurrency is None:
            return 1 << 30
        return limit.concurrency - self._holders.held[key] - self.spent[key]

    def next(self, key: str, limit: Limit) -> float:
        """In how many seconds the next start would be exactly in time."""
        if key not in self._next:
            found = self._fetch(_NEXT, key)
            self._next[key] = max(0.0, found[0][0]) if found else 0.0
        assert limit.every is not None
        return min(self._next[key], limit.every * limit.burst)

    def wait(self, key: str) -> float:
        """In how many seconds its rate lets one begin; 0: now."""
        limit = self.limit(key)
        if limit is None or limit.every is None:
            return 0.0
        # A little less than nothing, so that what a timer has waited for is there.
        wait = self.next(key, limit) - limit.every * (limit.burst - 1)
        return wait if wait > 1e-6 else 0.0

    def full(self, key: str, counts: bool = True) -> Full | None:
        if not self._limits:
            return None
        if self.free(key) <= 0:
            return Full(key, None)
        return Full(key, wait) if counts and (wait := self.wait(key)) else None

    def obstacle(self, wish: Wish) -> Full | None:
        """The first of its keys, in order of name, that keeps it from beginning."""
        if wish.moves:
            return None
        for key in wish.keys:
            if (full := self.full(key, wish.counts)) is not None:
                return full
        return None

    def spend(self, wish: Wish) -> dict[str, float]:
        """It begins. The keys whose rates count it, each with its new ``next``."""
        told = {}
        for key in () if wish.moves else wish.keys:
            self.spent[key] += 1
            limit = self.limit(key)
            if wish.counts and limit is not None and limit.every is not None:
                told[key] = self._next[key] = self.next(key, limit) + limit.every
        return told

    def closed(self, paused: InForce) -> InForce:
        """With the queues and names that are full, as if they were paused: but what moves goes on,
        as it does there."""
        queues, names = set(paused.queues), set(paused.names)
        for name in self._limits:
            if name.startswith("=") and self.full(name) is not None:
                is_queue = name.startswith(QUEUE)
                (queues if is_queue else names).add(name.partition(":")[2])
        if (len(queues), len(names)) == (len(paused.queues), len(paused.names)):
            return paused
        return InForce(paused.is_all, frozenset(queues), frozenset(names))


def budget(fetch: Fetch) -> Budget | None:
    """For the loop; None: there are no limits."""
    limits = in_force(fetch)
    return Budget(fetch, limits, Holders(fetch)) if limits else None


def why_blocked(fetch: Fetch, query: WhyBlocked) -> Obstacle | None:
    if (made := budget(fetch)) is None or (wish := made.wish(query.task)) is None:
        return None
    if (full := made.obstacle(wish)) is None:
        return None
    limit = made.limit(full.key)
    assert limit is not None, "what has no limit is not full"
    holders, held = [], 0
    for task, name, limits, revision, moves, since in fetch(_HOLDERS):
        if full.key in (TASK + name, *keys_of(limits)):
            held += 1
            holders.append(Holder(task, revision, bool(moves), since))
    return Obstacle(full.key, limit, held, tuple(holders[:HOLDERS]), full.wait)


def waits(fetch: Fetch) -> list[tuple[Any, ...]]:
    """In how many seconds the first rate lets a start go for which something waits, if any does."""
    return fetch(_FIRST_WAIT)


class Admission:
    """Goes through the ready tasks of one queue in the order of claiming. ``begun``: those that may
    begin, with what ``Budget.spend`` has said; ``blocked``: those that may not, for a key that they
    carry."""

    __slots__ = ("_budget", "_queue", "begun", "blocked")

    def __init__(self, budget: Budget, queue: str) -> None:
        self._budget = budget
        self._queue = queue
        self.begun: dict[int, Begun] = {}
        self.blocked: list[int] = []

    def is_open(self, task: int, name: str) -> bool:
        """Whether the queue and the name let any task begin, or this one moves."""
        full = self._budget.full(QUEUE + self._queue) or self._budget.full(TASK + name)
        return full is None or ((wish := self._budget.wish(task)) is not None and wish.moves)

    def those(self, candidates: Iterable[Candidate]) -> Iterator[Candidate]:
        """Those that may begin, until BLOCKED others were met."""
        for each in candidates:
            wish = self._budget.wish(each.task)
            if wish is None:
                continue
            if self._budget.obstacle(wish) is None:
                self.begun[each.task] = Begun(wish, self._budget.spend(wish))
                yield each
            else:
                self.blocked.append(each.task)
                if len(self.blocked) >= BLOCKED:
                    break
