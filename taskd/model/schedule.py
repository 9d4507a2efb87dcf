"""Schedules: what one says, and which of its due slots are run. Pure.

A slot that is due is *missed* if it is later than the schedule's ``late``, or if the next one is
due as well; a slot that is not missed runs late, whatever the policy. So of all that is due only
the newest can be in time. ``judge`` decides about all that is due at one moment; whether a slot
that is to run meets an earlier run (``overlap``) is the store's decision, in the transaction that
submits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any
from zlib import crc32

from taskd.model import cron
from taskd.model.duration import measure
from taskd.record import Record

if TYPE_CHECKING:
    from datetime import tzinfo

LATE = 600.0
"""Seconds that a slot may be late, unless the schedule says so."""

MOST = 100
"""Missed slots that ``catch_up = "all"`` runs …"""

BACK = 7 * 86400.0
"""… and how old they may be."""

DAY = 86400.0

CATCH_UP = ("skip", "once", "all")
OVERLAP = ("skip", "queue", "run")

KEYS = (
    "cron", "every", "tz", "queue", "key", "priority", "late", "catch_up", "overlap", "spread",
)  # fmt: skip
"""What a schedule may say, beside its task and arguments."""


class Schedule(Record):
    """``cron``: parsed; or ``every``, in seconds. ``source``: "code" or "config". Times in seconds;
    ``args``: plain data by name."""

    name: str
    task: str
    source: str
    cron: str | None
    every: int | None
    tz: str
    args: dict[str, Any]
    queue: str | None
    key: str | None
    priority: int
    late: float
    catch_up: str
    overlap: str
    spread: float

    @property
    def timing(self) -> str:
        """What decides about the slots."""
        return f"every {self.every}s" if self.cron is None else f"{self.cron} {self.tz}"

    @property
    def offset(self) -> float:
        """Seconds from each slot until it is due: the same for ever, made from the name."""
        return float(int(crc32(self.name.encode()) / 2**32 * self.spread))

    def slots(self, zone: tzinfo | None, after: float) -> Iterator[float]:
        """The slots later than ``after``; ``zone``: of ``tz``."""
        if self.cron is None:
            assert self.every is not None, "a schedule has one of the two"
            return cron.intervals(self.every, after)
        assert zone is not None, "a cron expression has a zone"
        return cron.slots(self.cron, zone, after)


def make(name: str, source: str, task: str, said: Mapping[str, Any]) -> Schedule:
    """From what code or configuration says; both may write times as ``10min``. Raises ValueError
    with a sentence that does not name the schedule."""
    expression, every = said.get("cron"), said.get("every")
    if (expression is None) == (every is None):
        raise ValueError("say either cron or every")
    if expression is not None and not isinstance(expression, str):
        raise ValueError(f"cron must be a text such as '0 3 * * *', not {expression!r}")
    if said.get("tz") is not None and every is not None:
        raise ValueError("every counts from midnight UTC: it takes no tz")
    overlap = _among("overlap", said.get("overlap"), OVERLAP)
    catch_up = _among("catch_up", said.get("catch_up"), CATCH_UP)
    if catch_up == "all" and overlap != "run":
        raise ValueError(
            'catch_up = "all" starts what was missed side by side, as far as the queue has places: '
            'it needs overlap = "run"'
        )
    args = said.get("args") or {}
    if not isinstance(args, dict) or not all(isinstance(each, str) for each in args):
        raise ValueError("args must be a table of the task's arguments by their names")
    return Schedule(
        name,
        task,
        source,
        cron.parse(expression) if expression is not None else None,
        _whole("every", every) if every is not None else None,
        _text("tz", said.get("tz"), 100) or "UTC",
        args,
        _text("queue", said.get("queue"), 200),
        _text("key", said.get("key"), 500),
        _priority(said.get("priority")),
        LATE if said.get("late") is None else _seconds("late", said["late"]),
        catch_up,
        overlap,
        _seconds("spread", said.get("spread") or 0),
    )


def _among(key: str, value: Any, known: tuple[str, ...]) -> str:
    if value is None:
        return known[0]
    if value not in known:
        raise ValueError(f"{key} is one of {', '.join(known)}, not {value!r}")
    return str(value)


def _text(key: str, value: Any, most: int) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not 1 <= len(value) <= most:
        raise ValueError(f"{key} must be a text of 1 to {most} characters, not {value!r}")
    return value


def _priority(value: Any) -> int:
    if value is None:
        return 0
    if type(value) is not int or abs(value) > 2**31 - 1:
        raise ValueError(f"priority must be a whole number, not {value!r}")
    return value


def _seconds(key: str, value: Any) -> float:
    try:
        found = measure(value) if isinstance(value, str) else value
        if type(found) not in (int, float) or not 0 <= found <= 366 * DAY:
            raise ValueError
    except ValueError:
        wanted = 'a time such as "30s", "10min" or "2h"'
        raise ValueError(f"{key} must be {wanted}, not {value!r}") from None
    return float(found)


def _whole(key: str, value: Any) -> int:
    found = _seconds(key, value)
    if found < 1 or found != int(found):
        raise ValueError(f"{key} must be whole seconds, at least 1, not {value!r}")
    return int(found)


def fields(schedule: Schedule) -> dict[str, Any]:
    """As ``restored`` takes them."""
    return schedule._asdict()


def restored(kept: Mapping[str, Any]) -> Schedule:
    """A schedule that was kept; another version may have kept more."""
    return Schedule(**{name: kept[name] for name in Schedule._fields})


# ── what is due ──────────────────────────────────────────────────────────────────────────────────


class Skip(Record):
    """``slots``: how many from ``first`` to ``last`` are not run, and why."""

    first: float
    last: float
    slots: int
    reason: str


class Verdict(Record):
    """``runs``: slots to run, oldest first. ``mark``: the newest slot that is decided."""

    runs: tuple[float, ...]
    skips: tuple[Skip, ...]
    mark: float


class Backlog:
    """The slots of one schedule that are due, counted in steps: there may be a year of them."""

    def __init__(self, schedule: Schedule, slots: Iterator[float], until: float) -> None:
        """``until``: slots up to then are due."""
        self._schedule = schedule
        self._slots = slots
        self._until = until
        self._first = 0.0
        self._count = 0
        self._latest: deque[float] = deque(maxlen=MOST + 2)

    def count(self, most: int) -> bool:
        """Look at up to so many further slots. Whether that was all."""
        every = self._schedule.every
        if every is not None and not self._count:
            self._leap(every)
        for slot in islice(self._slots, most):
            if slot > self._until:
                return True
            self._first = self._first if self._count else slot
            self._count += 1
            self._latest.append(slot)
            most -= 1
        return most > 0

    def _leap(self, every: int) -> None:
        """Equal intervals need not be counted one by one."""
        first = next(self._slots)
        self._slots = cron.intervals(every, first - every)
        far = int((self._until - first) // every) - MOST - 2
        if far > 0:
            self._first, self._count = first, far
            self._slots = cron.intervals(every, first + (far - 1) * every)

    def judge(self, now: float, catch_up: str | None = None) -> Verdict | None:
        """What is done about them; None: none is due. ``catch_up``: in place of the schedule's."""
        if not self._count:
            return None
        schedule, latest = self._schedule, list(self._latest)
        newest = latest[-1]
        is_missed = now - newest - schedule.offset > schedule.late
        runs = [] if is_missed else [newest]
        policy = catch_up or schedule.catch_up
        if policy == "once":
            runs = [newest]
        elif policy == "all":
            missed = latest if is_missed else latest[:-1]
            runs = [slot for slot in missed if now - slot <= BACK][-MOST:] + runs
        return Verdict(tuple(runs), self._skips(latest, runs, policy), newest)

    def _skips(self, latest: list[float], runs: list[float], policy: str) -> tuple[Skip, ...]:
        count = self._count - len(runs)
        if not count:
            return ()
        last = latest[-1 - len(runs)]
        return (Skip(self._first, last, count, _WHY[policy]),)


_WHY = {
    "skip": "missed: it was too late to run",
    "once": "missed: one run catches up for all",
    "all": f"missed: only the last {MOST} of 7 days are caught up",
}
