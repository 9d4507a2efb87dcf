"""The scheduler: submits the task of each slot when it is due, and tells how schedules are.

Level-triggered: each look starts from the store's rows (the mark of each schedule) and the clock as
they are now. What is due is decided in ``model.schedule`` and written by one operation (``Due``),
which does nothing if the row is not the one that was decided from. So nothing here crosses an exec
or a crash: the next master reads the rows and goes on, once it has taken up the schedules of the
revision that serves.

It never waits longer than LONGEST for a slot: the clock may be set. An error in one schedule is
that schedule's alone, and shown as a trouble as long as it lasts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

from taskd import log
from taskd.errors import StoreError
from taskd.master.attempts import Dispatch, Pauses
from taskd.master.fleet import Revision, Revisions
from taskd.master.loop import Life, Look, Loop, Storage, Timer
from taskd.master.schedules import defined, zones
from taskd.master.schedules.defined import Defined
from taskd.model import limits
from taskd.model.schedule import DAY, Backlog, Schedule, Verdict
from taskd.protocol import data
from taskd.store.api import Applied, Submit
from taskd.store.queries import Schedules as Asked
from taskd.store.schedule_api import Definition, Due, Slot, TakeUp
from taskd.store.values import Scheduled, Scope

LONGEST = 30.0
"""Seconds after which the clock is looked at again, whatever the next slot."""

STEP = 500
"""Slots that are counted in one turn of the loop."""

KEPT = (8 * DAY, 400 * DAY)
"""Seconds for which the facts of slots are kept: as long as FACTS of them take, between these."""

FACTS = 10_000

SHOWN = 3
"""Slots in a row that an earlier run keeps from running, after which it is a trouble."""


class Schedules:
    """``look``: the clock, a task or a pause has changed."""

    def __init__(
        self,
        loop: Loop,
        life: Life,
        storage: Storage,
        revisions: Revisions,
        dispatch: Dispatch,
        pauses: Pauses,
    ) -> None:
        self._loop = loop
        self._life = life
        self._storage = storage
        self._revisions = revisions
        self._dispatch = dispatch
        self._pauses = pauses
        self._defined = defined.NONE
        self._is_taken_up = False
        self._rows: dict[str, Scheduled] = {}
        self._next: dict[tuple[str, str, float], float | None] = {}
        self._backlogs: dict[str, Backlog] = {}
        self._busy: set[str] = set()  # a decision is being written
        self._problems: dict[str, str] = {}
        self._timer: Timer | None = None
        self._zones_read = 0.0
        self.refresh = Look(loop, "schedules cannot be read", self._ask).ask
        self.look = Look(loop, "schedules are not looked at", self._look).ask

    # ── what there is ────────────────────────────────────────────────────────────────────────

    def begin(self) -> None:
        """A revision serves: its schedules are those of the daemon from now on."""
        self._is_taken_up = False
        self.refresh()

    def refresh_if_waiting(self) -> None:
        """A task has ended: a slot may have waited for it."""
        if any(row.pending is not None for row in self._rows.values()):
            self.refresh()

    def planned(self, target: Revision) -> defined.Planned:
        """What a deploy of ``target`` would do with them."""
        return defined.planned(self._of_current(), defined.of(target))

    def _of_current(self) -> Defined:
        current = self._revisions.current
        return defined.NONE if current is None else defined.of(current)

    def _ask(self) -> None:
        if self._life.is_up:
            self._storage.ask(Asked(), self._told)

    def _told(self, rows: list[Scheduled] | StoreError) -> None:
        if isinstance(rows, StoreError):
            self._loop.troubles.tell("schedules cannot be read", rows)
            self._loop.again(self.refresh)
            return
        self._rows = {row.name: row for row in rows}
        if not self._is_taken_up:
            self._take_up()
        self.look()

    def _take_up(self) -> None:
        self._defined = self._of_current()
        self._problems = dict(self._defined.wrong)
        self._next.clear()
        self._backlogs.clear()
        wanted = defined.definitions(self._defined)
        kept = tuple(
            _definition(row) for name, row in self._rows.items()
            if name in self._defined.wrong and row.dropped is None
        )  # fmt: skip
        known = {_definition(row) for row in self._rows.values() if row.dropped is None}
        if known == {*wanted, *kept}:
            self._is_taken_up = True
            return

        def done(outcome: Applied | StoreError) -> None:
            if isinstance(outcome, StoreError):
                self._loop.again(self.refresh)
                return
            for name, change in outcome.result:
                log.info("schedule", name=name, change=change)
            self.refresh()

        self._storage.write(TakeUp((*wanted, *kept)), done)

    # ── what is due ──────────────────────────────────────────────────────────────────────────

    def _look(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._life.may_dispatch or not self._is_taken_up or not self._defined.right:
            self._tell_problems()
            return
        now = time.time()
        self._read_zones_anew(now)
        wait = LONGEST
        if self._storage.damage is None and not self._is_all_paused():
            for name, schedule in self._defined.right.items():
                wait = min(wait, self._step(name, schedule, now))
        self._tell_problems()
        is_waiting = any(row.pending is not None for row in self._rows.values())
        again = self.refresh if is_waiting else self.look
        self._timer = self._loop.after(max(0.0, wait), again)

    def _is_all_paused(self) -> bool:
        return any(each.scope == Scope() for each in self._pauses.in_force())

    def _read_zones_anew(self, now: float) -> None:
        if abs(now - self._zones_read) > DAY and any(
            each.cron is not None for each in self._defined.right.values()
        ):
            self._zones_read = now
            zones.forget()
            self._next.clear()

    def _step(self, name: str, schedule: Schedule, now: float) -> float:
        """Decide what is due of one schedule; in how many seconds to look at it again."""
        row = self._rows.get(name)
        if row is None or row.dropped is not None or row.paused is not None or name in self._busy:
            return LONGEST
        try:
            found = self._decide(row, schedule, now)
        except Exception as error:  # whatever is wrong with one must not stop the others
            self._problems[name] = f"{type(error).__name__}: {error}"
            return LONGEST
        self._problems.pop(name, None)
        return found

    def _decide(self, row: Scheduled, schedule: Schedule, now: float) -> float:
        if row.mark - now > DAY:
            log.warning("a schedule's last slot is in the future", name=row.name, mark=row.mark)
            self._write(row, schedule, Verdict((), (), now), now)
            return LONGEST
        if row.pending is not None and not row.alive:
            self._write(row, schedule, Verdict((row.pending,), (), row.mark), now)
            return LONGEST
        slot = self._next_slot(schedule, row.mark)
        if slot is None:
            return LONGEST
        if (wait := slot + schedule.offset - now) > 0:
            return wait
        backlog = self._backlogs.get(row.name)
        if backlog is None:
            backlog = Backlog(schedule, self._slots(schedule, row.mark), now - schedule.offset)
            self._backlogs[row.name] = backlog
        if not backlog.count(STEP):
            return 0.0
        del self._backlogs[row.name]
        verdict = backlog.judge(now, row.catch_up)
        if verdict is not None:
            self._write(row, schedule, verdict, now)
        return LONGEST

    def _slots(self, schedule: Schedule, after: float) -> Iterator[float]:
        zone = None if schedule.cron is None else zones.find(schedule.tz)
        return schedule.slots(zone, after)

    def _next_slot(self, schedule: Schedule, mark: float) -> float | None:
        key = (schedule.name, schedule.timing, mark)
        if key not in self._next:
            for known in [each for each in self._next if each[0] == schedule.name]:
                del self._next[known]
            self._next[key] = next(self._slots(schedule, mark), None)
        return self._next[key]

    def _write(self, row: Scheduled, schedule: Schedule, verdict: Verdict, now: float) -> None:
        runs = tuple(Slot(slot, self._task(schedule, slot, now)) for slot in verdict.runs)
        after = self._next_slot(schedule, verdict.mark)
        interval = max(1.0, (after or verdict.mark + DAY) - verdict.mark)
        keep = now - min(max(FACTS * interval, KEPT[0]), KEPT[1])
        order = Due(
            row.name, row.mark, verdict.mark, runs, verdict.skips, schedule.overlap, keep, now
        )
        self._busy.add(row.name)

        def done(outcome: Applied | StoreError) -> None:
            self._busy.discard(row.name)
            if isinstance(outcome, StoreError):
                self._loop.again(self.refresh)
                return
            if not isinstance(outcome.result, list):  # what is known here is about to change
                self._loop.after(1.0, self.refresh)
                return
            for task in outcome.result:
                log.info("slot", schedule=row.name, slot=_date(verdict.runs[-1]), task=task)
            for skip in verdict.skips:
                slots = f"{skip.slots} from {_date(skip.first)} to {_date(skip.last)}"
                log.warning("slots skipped", schedule=row.name, slots=slots, why=skip.reason)
            if outcome.result:
                self._dispatch.on_waiting(False)
            self.refresh()

        self._storage.write(order, done)

    def _task(self, schedule: Schedule, slot: float, now: float) -> Submit:
        import hashlib

        identity = f"{schedule.name}\0{slot!r}".encode(errors="surrogatepass")
        return self.task_of(schedule, hashlib.sha256(identity).digest()[:16], now)

    def task_of(self, schedule: Schedule, submission: bytes, now: float) -> Submit:
        """A task of the schedule, as the current revision has it. Raises KeyError if it has none of
        that name."""
        current = self._revisions.current
        assert current is not None, "nothing is due before a revision serves"
        entry = current.tasks[schedule.task]
        return Submit(
            submission=submission,
            owner=os.getuid(),
            name=schedule.task,
            version=entry["version"],
            args=data.encode(schedule.args, "args", data.ARGUMENTS_LIMIT),
            shape=",".join(sorted(schedule.args)),
            queue=schedule.queue or entry["queue"],
            priority=schedule.priority,
            key=schedule.key,
            delay=None,
            retries=entry["retries"],
            on_deploy=None,
            at=now,
            limits=limits.keys(entry, schedule.args),
        )

    # ── what is told ─────────────────────────────────────────────────────────────────────────

    def get(self, name: str) -> Schedule | None:
        return self._defined.right.get(name)

    def _tell_problems(self) -> None:
        for name, why in self._problems.items():
            self._loop.troubles.tell(f"schedule '{name}' does not run", why, lasts=3 * LONGEST)
        for name, row in self._rows.items():
            if row.dropped is None and row.overlaps >= SHOWN:
                since = "yet" if row.last_slot is None else f"since {_date(row.last_slot)}"
                self._loop.troubles.tell(
                    f"schedule '{name}' has not run {since}",
                    f"{row.overlaps} slots were skipped: {row.why}",
                    lasts=3 * LONGEST,
                )

    def told(self, rows: list[Scheduled]) -> list[dict[str, Any]]:
        """As clients see them (``schedules`` of ``protocol.control``)."""
        found = {row.name: row for row in rows}
        return [self._told_of(name, found.get(name)) for name in sorted({*found, *self._problems})]

    def _told_of(self, name: str, row: Scheduled | None) -> dict[str, Any]:
        schedule = self._defined.right.get(name)
        told: dict[str, Any] = {"name": name, "problem": self._problems.get(name)}
        if schedule is not None:
            told |= {
                "task": schedule.task,
                "source": schedule.source,
                "cron": schedule.cron,
                "every": schedule.every,
                "tz": schedule.tz,
                "overlap": schedule.overlap,
                "catch_up": schedule.catch_up,
                "text": defined.in_words(schedule),
            }
        if row is not None:
            told |= {
                "paused": row.paused,
                "dropped": row.dropped,
                "waits": row.pending,
                "last_slot": row.last_slot,
                "last_task": row.last_task,
                "last_state": None if row.state is None else row.state.value,
                "skipped": row.skipped,
                "why": row.why,
                "running": list(row.alive),
            }
        told["next"] = self._told_next(row, schedule)
        return told

    def _told_next(self, row: Scheduled | None, schedule: Schedule | None) -> float | None:
        if row is None or schedule is None or row.paused is not None or row.dropped is not None:
            return None
        try:
            slot = self._next_slot(schedule, row.mark)
        except Exception:  # the look has told it
            return None
        return None if slot is None else slot + schedule.offset


def _definition(row: Scheduled) -> Definition:
    return Definition(row.name, row.timing, row.kept)


def _date(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
