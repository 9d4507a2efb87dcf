"""Which queued tasks a limit keeps from being ready, and what makes them ready again.

Runs in the writer thread, in the open transaction of a batch (see ``limit_api`` and ``limiting``).
A *lane* is what is blocked on one key in one queue under one name: the index ``tasks_blocked`` has
the lanes, each in the order of claiming. Lanes are served apart, so that a queue without places or
a name that is paused does not keep a free key from others.

Invariants:

* As long as a key is not full, of each of its lanes as many tasks are ready as may begin, or
  WINDOW, if there are that many: what frees a place adds one to each lane; a claim takes the place
  along with the task; and where a claim leaves more than WINDOW places, or a rate, the lane gets
  another for it. A ready task that goes another way (cancelled, held, blocked on another key)
  leaves its place in the lane to the next.
* If a key is full by its rate and something is blocked on it, ``limit_waits`` says until when.
* More may be ready than may begin: a Take asks again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

from taskd.errors import Refused
from taskd.model.task import State
from taskd.record import Record
from taskd.store import schema
from taskd.store.limit_api import LIMITS, QUEUE, Block, Release, TakeUpLimits
from taskd.store.limiting import Budget, Full, Holders, Wish, in_force, keys_of
from taskd.store.values import Limit

WINDOW = 64
"""Tasks of a lane that are ready at least, if as many may begin."""

TRIES = 32
"""Tasks of a lane that are looked at in vain, at most, for one that no other key keeps."""

WAITS = 100
"""Keys whose rates are looked at by one Wake."""

_LIMITED = "select limits, blocked, queue, name from tasks where id = ?"
_KEY = (
    "select blocked from tasks indexed by tasks_blocked"
    f" where {schema.BLOCKED} and blocked > ? order by blocked limit 1"
)
_LANE_OF_QUEUE = (
    "select queue, name from tasks indexed by tasks_blocked"
    f" where {schema.BLOCKED} and blocked = ? and queue = ? and name > ? order by name limit 1"
)
_LANE = (
    "select queue, name from tasks indexed by tasks_blocked"
    f" where {schema.BLOCKED} and blocked = ? and queue > ? order by queue, name limit 1"
)
_BEST = (
    "select id, priority, turn from tasks indexed by tasks_blocked"
    f" where {schema.BLOCKED} and blocked = ? and queue = ? and name = ?"
    " order by priority desc, turn, id limit ?"
)
_PLACE = "select id, priority, turn from tasks where id = ?"
_SET = "update tasks set blocked = ? where id = ?"
_CARRY = "update tasks set limits = ?, blocked = null where id = ?"
_WAIT = "insert or replace into limit_waits (key, at) values (?, ?)"
_DUE = "select key from limit_waits where at <= ? order by at limit ?"
_WAITED = "delete from limit_waits where key = ?"
_RATE = "insert or replace into limit_rates (key, next) values (?, ?)"
_IDLE = (
    "delete from limit_rates where key in (select key from limit_rates"
    " indexed by limit_rates_next where next < ? order by next limit 2)"
)
_PUT = (
    "insert or replace into limits (name, concurrency, every, burst, source, dropped)"
    " values (?, ?, ?, ?, ?, 0)"
)
_DROP = "update limits set dropped = 1 where name = ?"
_END = "delete from limits where name = ?"


class _Lane(Record):
    queue: str
    name: str


class Limiting:
    """What a connection's transactions know of limits; ``forget`` once one was rolled back."""

    __slots__ = ("_clock", "_connection", "_freed", "_holders", "_limits")

    def __init__(self, connection: sqlite3.Connection, clock: Callable[[], float]) -> None:
        self._connection = connection
        self._clock = clock
        self.forget()

    def forget(self) -> None:
        self._limits: dict[str, Limit] | None = None
        self._holders: Holders | None = None
        self._freed: list[tuple[str, _Lane | None]] = []

    def _fetch(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        return self._connection.execute(statement, values).fetchall()

    def _run(self, statement: str, *values: Any) -> None:
        self._connection.execute(statement, values)

    @property
    def in_force(self) -> dict[str, Limit]:
        if self._limits is None:
            self._limits = in_force(self._fetch)
        return self._limits

    @property
    def holders(self) -> Holders:
        if self._holders is None:
            self._holders = Holders(self._fetch)
        return self._holders

    def budget(self) -> Budget | None:
        """None: there are no limits."""
        return self._budget() if self.in_force else None

    def _budget(self) -> Budget:
        return Budget(self._fetch, self.in_force, self.holders)

    # ── what happens to tasks ────────────────────────────────────────────────────────────────

    def began(self, wish: Wish, told: dict[str, float]) -> None:
        """The task is claimed; ``told``: by key, what ``Budget.spend`` has said."""
        now, budget = self._clock(), self._budget()
        self.holders.add(wish.task, wish.name, wish.limits)
        for key, wait in told.items():
            self._run(_RATE, key, now + wait)
        if told:
            self._run(_IDLE, now)
        lane = _Lane(wish.queue, wish.name)
        for key in () if wish.moves else wish.keys:
            limit = budget.limit(key)
            if limit is not None and (limit.every is not None or budget.free(key) >= WINDOW):
                full = budget.full(key)
                if key.startswith("=") and full is not None and full.wait is not None:
                    self._run(_WAIT, key, now + full.wait)
                elif not key.startswith("="):
                    self._freed.append((key, lane))

    def changing(self, task: int, was: State) -> None:
        """Another change than a claim; its row is as it was."""
        if not self.in_force:
            return
        if task in self.holders:
            self._freed += [(key, None) for key in self.holders.drop(task)]
        elif was is State.QUEUED:
            limits, blocked, *lane = self._fetch(_LIMITED, task)[0]
            if blocked is None:
                self._freed += [(key, _Lane(*lane)) for key in keys_of(limits)]

    def queued(self, task: int) -> None:
        """Its row is that of a ready task now: it goes on to hold, or it is blocked after all."""
        if not self.in_force or (wish := (budget := self._budget()).wish(task)) is None:
            return
        if wish.moves:
            self.holders.add(task, wish.name, wish.limits)
            for key in wish.keys:
                if (key, None) in self._freed:
                    self._freed.remove((key, None))
            return
        for key in keys_of(wish.limits):
            full = budget.full(key, wish.counts)
            if full is not None or self._is_behind(wish, key):
                self._block(task, full or Full(key, None))
                return

    def replaced(self, task: int, state: State, keys: tuple[str, ...]) -> None:
        """A task that has not begun carries these keys now."""
        if state is State.QUEUED:
            self.changing(task, state)
        self._run(_CARRY, "\n".join(keys) or None, task)
        if state is State.QUEUED:
            self.queued(task)

    def _is_behind(self, wish: Wish, key: str) -> bool:
        """Whether a better task is blocked in that lane."""
        best = self._fetch(_BEST, key, wish.queue, wish.name, 1)
        return bool(best) and _order(best[0]) < _order(self._fetch(_PLACE, wish.task)[0])

    def _block(self, task: int, full: Full) -> None:
        self._run(_SET, full.key, task)
        if full.wait is not None:
            self._run(_WAIT, full.key, self._clock() + full.wait)

    # ── what makes others ready ──────────────────────────────────────────────────────────────

    def put_back(self) -> None:
        """After each operation: for all that it has freed."""
        while self._freed:
            key, lane = self._freed.pop()
            budget = self._budget()
            limit = budget.limit(key)
            if limit is None or key.startswith("="):
                continue
            free = budget.free(key)
            if lane is not None:
                self._fill(budget, key, lane, 1)
            elif free == 1 or (limit.every is None and free <= WINDOW):
                for each in self._lanes(key):
                    self._fill(budget, key, each, 1)

    def _lanes(self, key: str) -> list[_Lane]:
        found: list[_Lane] = []
        lane = self._fetch(_LANE, key, "")
        while lane:
            last = _Lane(*lane[0])
            found.append(last)
            lane = self._fetch(_LANE_OF_QUEUE, key, *last) or self._fetch(_LANE, key, last.queue)
        return found

    def _fill(self, budget: Budget, key: str, lane: _Lane, count: int) -> None:
        """Make the best ``count`` of the lane ready, unless its key is full."""
        full = budget.full(key)
        if full is not None:
            if full.wait is not None and self._fetch(_BEST, key, *lane, 1):
                self._run(_WAIT, key, self._clock() + full.wait)
            return
        done = 0
        for tries, (task, *_) in enumerate(self._fetch(_BEST, key, *lane, count + TRIES)):
            if done == count:
                break
            wish = budget.wish(task)
            assert wish is not None, "it is blocked"
            other = None
            for each in keys_of(wish.limits) if tries + 1 < count + TRIES else ():
                if (other := budget.full(each, wish.counts)) is not None:
                    break
            if other is not None and other.key != key:
                self._block(task, other)
            else:
                self._run(_SET, None, task)
                done += 1

    def _open(self, key: str) -> None:
        """Something may have freed ``key``: as many are ready as may begin, WINDOW at most."""
        budget = self._budget()
        count = min(budget.free(key), WINDOW)
        limit = budget.limit(key)
        if limit is not None and limit.every is not None:
            left = limit.burst - budget.next(key, limit) / limit.every
            count = min(count, max(1, int(left + 1e-6)))
        for lane in self._lanes(key):
            self._fill(budget, key, lane, max(1, count))

    def wake(self) -> None:
        """Rates that let a start go by now."""
        now = self._clock()
        for (key,) in self._fetch(_DUE, now, WAITS):
            self._run(_WAITED, key)
            if key.startswith("="):
                if (wait := self._budget().wait(key)) > 0:
                    self._run(_WAIT, key, now + wait)
            else:
                self._open(key)

    def shift(self, seconds: float) -> None:
        self._run("update limit_waits set at = at + ?", seconds)
        self._run("update limit_rates set next = next + ?", seconds)

    # ── operations ───────────────────────────────────────────────────────────────────────────

    def take_up(self, order: TakeUpLimits) -> tuple[tuple[str, str], ...]:
        if len(order.limits) > LIMITS:
            raise Refused(f"{len(order.limits)} limits are more than {LIMITS:,}")
        known, changes = dict(self.in_force), []
        for limit in order.limits:
            was = known.pop(limit.name, None)
            if was == limit:
                continue
            self._run(_PUT, *limit[:5])
            how = "new" if was is None else "back" if was.dropped else "changed"
            changes.append((limit.name, how))
        for name, was in known.items():
            if name.startswith(QUEUE) or name in order.ended:
                self._run(_END, name)
                changes.append((name, "ended"))
            elif not was.dropped:
                self._run(_DROP, name)
                changes.append((name, "dropped"))
        self.forget()
        return tuple(changes)

    def release(self, order: Release) -> str | None:
        after = order.after or ""
        for _ in range(order.limit):
            found = self._fetch(_KEY, after)
            if not found:
                return None
            after = found[0][0]
            self._open(after)
        return after

    def block(self, order: Block) -> list[int]:
        blocked = []
        for task in order.tasks:
            budget = self._budget()
            wish = budget.wish(task)
            if wish is None or wish.moves or self._fetch(_LIMITED, task)[0][1] is not None:
                continue
            keys = keys_of(wish.limits)
            full = next((f for k in keys if (f := budget.full(k, wish.counts)) is not None), None)
            if full is not None:
                self._block(task, full)
                lane = _Lane(wish.queue, wish.name)
                self._freed += [(key, lane) for key in keys if key != full.key]
                blocked.append(task)
        return blocked


def _order(place: tuple[int, int, int]) -> tuple[int, int, int]:
    """As ``place`` (id, priority, turn) is sorted in the order of claiming."""
    task, priority, turn = place
    return -priority, turn, task
