"""What every store must do about schedules: each slot once ever, with its fact and the mark."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from stores import STORES
from support.answers import Reading, answer

from taskd.errors import Refused
from taskd.model.schedule import Skip
from taskd.model.task import State
from taskd.store.api import Pause, Purge, Resume, Submitted
from taskd.store.queries import Filter, Schedules
from taskd.store.schedule_api import (
    DROPPED,
    Definition,
    Due,
    PauseSchedule,
    ResumeSchedule,
    RunNow,
    Slot,
    TakeUp,
)
from taskd.store.values import Scheduled, Scope

NIGHTLY = Definition("nightly", "0 3 * * * UTC", b"kept")
CHILD = str(Path(__file__).with_name("running_slots.py"))
EVERY = Filter(limit=1_000_000)


def take_up(bench: Any, *definitions: Definition) -> dict[str, str]:
    return dict(bench.one(TakeUp(definitions)))


def found(bench: Any, name: str = "nightly") -> Scheduled:
    (schedule,) = [each for each in answer(bench.reader, Schedules()) if each.name == name]
    assert isinstance(schedule, Scheduled)
    return schedule


def slot(bench: Any, at: float, **fields: Any) -> Slot:
    submission = hashlib.sha256(f"nightly {at}".encode()).digest()[:16]
    return Slot(at, bench.new(submission=submission, **fields))


def due(
    bench: Any,
    *slots: float,
    was: float | None = None,
    mark: float | None = None,
    overlap: str = "skip",
    skips: tuple[Skip, ...] = (),
    keep: float = 0.0,
    **fields: Any,
) -> Any:
    known = found(bench)
    runs = tuple(slot(bench, at, **fields) for at in slots)
    before = known.mark if was is None else was
    after = max([before, *slots]) if mark is None else mark
    return bench.one(Due("nightly", before, after, runs, skips, overlap, keep, bench.now))


@pytest.fixture
def schedule(bench: Any) -> Any:
    """Its mark is 1001, the store's clock then."""
    assert take_up(bench, NIGHTLY) == {"nightly": "new"}
    return bench


def test_a_new_schedule_has_its_first_slot_after_it_was_taken_up(bench: Any) -> None:
    assert take_up(bench, NIGHTLY) == {"nightly": "new"}
    assert found(bench).mark == bench.now
    assert take_up(bench, NIGHTLY) == {}
    assert found(bench).kept == b"kept"


def test_a_slot_is_submitted_once_ever_with_its_fact_and_the_mark(schedule: Any) -> None:
    (task,) = due(schedule, 2000.0)
    known = found(schedule)
    assert (known.mark, known.last_slot, known.last_task) == (2000.0, 2000.0, task)
    assert (known.state, known.alive) == (State.QUEUED, (task,))
    assert due(schedule, 2000.0, was=1001.0) is None, "who asks knows an old mark"
    schedule.ended(task, State.SUCCEEDED)
    assert due(schedule, 2000.0, mark=2000.0) == [], "the fact holds, whatever the mark"
    schedule.one(Purge((task,), None, 1 << 20))
    assert due(schedule, 2000.0, mark=1500.0) == [], "and it outlives the task"
    assert (found(schedule).mark, found(schedule).state) == (1500.0, None)


def test_several_slots_are_run_and_skipped_in_one_operation(schedule: Any) -> None:
    skips = (Skip(1500.0, 1800.0, 4, "missed"),)
    tasks = due(schedule, 2000.0, 2100.0, overlap="run", skips=skips)
    assert len(tasks) == 2
    assert found(schedule).alive == tuple(tasks)
    assert due(schedule, 1500.0, mark=2100.0, overlap="run") == [], "it is skipped for good"


def test_only_skipped_slots_are_told_with_the_reason(schedule: Any) -> None:
    assert due(schedule, mark=1800.0, skips=(Skip(1500.0, 1800.0, 4, "missed"),)) == []
    known = found(schedule)
    assert (known.mark, known.skipped, known.why) == (1800.0, 1500.0, "missed")


# ── overlap ──────────────────────────────────────────────────────────────────────────────────────


def test_skip_leaves_out_what_meets_an_earlier_run(schedule: Any) -> None:
    (task,) = due(schedule, 2000.0)
    assert due(schedule, 3000.0) == []
    assert found(schedule).why == f"task {task} waits still"
    schedule.claim(task)
    assert due(schedule, 4000.0) == []
    assert (found(schedule).why, found(schedule).overlaps) == (f"task {task} runs still", 2)
    schedule.settle(task, State.SUCCEEDED)
    (again,) = due(schedule, 5000.0)
    assert (found(schedule).overlaps, found(schedule).alive) == (0, (again,))


def test_a_retry_is_in_the_way_and_a_held_task_is_not(schedule: Any) -> None:
    (task,) = due(schedule, 2000.0)
    schedule.ended(task, State.SCHEDULED, delay=1000.0)
    assert due(schedule, 3000.0) == []
    schedule.wake(9, after=1000.0)
    schedule.ended(task, State.HELD)
    (other,) = due(schedule, 4000.0)
    schedule.ended(other, State.SUCCEEDED)
    schedule.retry(task)
    assert due(schedule, 5000.0) == [], "it runs again"


def test_run_starts_beside_an_earlier_run(schedule: Any) -> None:
    first, second = due(schedule, 2000.0, overlap="run")[0], due(schedule, 3000.0, overlap="run")[0]
    assert found(schedule).alive == (first, second)


def test_queue_keeps_one_slot_until_the_earlier_run_is_over(schedule: Any) -> None:
    (task,) = due(schedule, 2000.0, overlap="queue")
    assert due(schedule, 2500.0, overlap="queue") == []
    assert found(schedule).pending is None, "a task that has not begun runs for both"
    schedule.claim(task)
    assert due(schedule, 3000.0, overlap="queue") == []
    assert due(schedule, 4000.0, overlap="queue") == []
    assert (found(schedule).pending, found(schedule).alive) == (3000.0, (task,))
    assert due(schedule, 3000.0, mark=4000.0, overlap="queue") == [], "it runs still"
    schedule.settle(task, State.FAILED)
    (again,) = due(schedule, 3000.0, mark=4000.0, overlap="queue")
    known = found(schedule)
    assert (known.pending, known.last_slot, known.last_task) == (None, 3000.0, again)
    assert due(schedule, 3000.0, mark=4000.0, overlap="queue") == []


def test_a_slot_that_meets_its_key_joins_or_is_skipped(schedule: Any) -> None:
    task = schedule.submit(key="k")
    other = b"\xa1apathb/y"
    assert due(schedule, 2000.0, key="k", args=other) == []
    assert "key" in str(found(schedule).why)
    assert due(schedule, 3000.0, key="k") == [task]


# ── deploys ──────────────────────────────────────────────────────────────────────────────────────


def test_a_changed_timing_begins_anew_and_other_changes_do_not(schedule: Any) -> None:
    mark = found(schedule).mark
    assert take_up(schedule, NIGHTLY._replace(kept=b"other")) == {"nightly": "changed"}
    assert (found(schedule).mark, found(schedule).kept) == (mark, b"other")
    assert take_up(schedule, NIGHTLY._replace(timing="0 9 * * * UTC")) == {"nightly": "changed"}
    assert found(schedule).mark == schedule.now


def test_a_dropped_schedule_runs_nothing_and_a_rollback_finds_its_mark_and_pause(
    schedule: Any,
) -> None:
    schedule.one(PauseSchedule("nightly", 0, schedule.now))
    mark = found(schedule).mark
    assert take_up(schedule) == {"nightly": "dropped"}
    assert take_up(schedule) == {}
    assert due(schedule, 2000.0) is None
    with pytest.raises(Refused, match="no schedule 'nightly'"):
        schedule.one(ResumeSchedule("nightly"))
    assert take_up(schedule, NIGHTLY) == {"nightly": "back"}
    known = found(schedule)
    assert (known.mark, known.dropped, known.paused is None) == (mark, None, False)


def test_a_dropped_schedule_is_forgotten_after_its_time(schedule: Any) -> None:
    take_up(schedule)
    schedule.now += DROPPED + 1
    take_up(schedule)
    assert answer(schedule.reader, Schedules()) == []


# ── pauses, and by hand ──────────────────────────────────────────────────────────────────────────


def test_a_paused_schedule_has_no_slots_until_it_is_resumed(schedule: Any) -> None:
    assert schedule.one(PauseSchedule("nightly", 7, schedule.now))
    assert not schedule.one(PauseSchedule("nightly", 8, schedule.now))
    assert (found(schedule).by, due(schedule, 2000.0)) == (7, None)
    schedule.now = 5000.0
    assert schedule.one(ResumeSchedule("nightly"))
    assert not schedule.one(ResumeSchedule("nightly"))
    assert (found(schedule).mark, found(schedule).catch_up) == (5001.0, None)


def test_resuming_may_say_that_what_was_missed_is_caught_up(schedule: Any) -> None:
    mark = found(schedule).mark
    schedule.one(PauseSchedule("nightly", 7, schedule.now))
    schedule.now = 5000.0
    schedule.one(ResumeSchedule("nightly", "once"))
    assert (found(schedule).mark, found(schedule).catch_up) == (mark, "once")
    due(schedule, 4000.0)
    assert found(schedule).catch_up is None, "once"


@pytest.mark.parametrize("seconds", [None, 1000.0])
def test_while_everything_is_paused_there_are_no_slots(
    schedule: Any, seconds: float | None
) -> None:
    schedule.one(Pause(Scope(), 0, schedule.now, seconds, ""))
    over = schedule.now + 1000.0
    assert due(schedule, 1500.0) is None
    schedule.now = 9000.0
    if seconds is None:
        schedule.one(Resume(Scope()))
        over = schedule.now
    assert due(schedule, 1500.0, was=1001.0) is None, "the mark is where the pause ended"
    assert found(schedule).mark == over
    assert not schedule.one(Resume(Scope()))
    assert found(schedule).mark == over, "what was not paused loses no slot"


def test_a_pause_of_a_queue_stops_no_slot(schedule: Any) -> None:
    schedule.one(Pause(Scope(queue="default"), 0, schedule.now, None, ""))
    assert len(due(schedule, 2000.0)) == 1


def test_run_now_is_a_task_of_its_own_and_moves_nothing(schedule: Any) -> None:
    mark = found(schedule).mark
    new = schedule.new()
    made = schedule.one(RunNow("nightly", new, False))
    assert isinstance(made, Submitted) and made.created
    assert schedule.one(RunNow("nightly", new, False)) == Submitted(made.task, False), "sent twice"
    known = found(schedule)
    assert (known.mark, known.last_slot, known.last_task) == (mark, None, made.task)
    with pytest.raises(Refused, match=f"task {made.task} of schedule 'nightly' waits still"):
        schedule.one(RunNow("nightly", schedule.new(), False))
    assert schedule.one(RunNow("nightly", schedule.new(), True)).created
    assert due(schedule, 2000.0) == [], "it is in the way of a slot"
    with pytest.raises(Refused, match="no schedule 'other'"):
        schedule.one(RunNow("other", schedule.new(), False))


def test_everything_of_a_schedule_outlives_a_restart(schedule: Any) -> None:
    (task,) = due(schedule, 2000.0)
    before = found(schedule)
    schedule.reopen()
    assert found(schedule) == before
    assert due(schedule, 2000.0, mark=2000.0) == [] and found(schedule).last_task == task


def test_facts_are_removed_once_they_are_too_old(schedule: Any) -> None:
    def again(at: float, keep: float) -> Any:
        known = found(schedule)
        run = Slot(at, schedule.new())
        order = Due("nightly", known.mark, 9000.0, (run,), (), "run", keep, schedule.now)
        return schedule.one(order)

    assert len(again(2000.0, 0.0)) == 1
    assert again(2000.0, 2000.0) == [], "it is as old as may be"
    assert again(2000.0, 2000.1) == []
    assert len(again(2000.0, 0.0)) == 1


# ── kills ────────────────────────────────────────────────────────────────────────────────────────


def run(kind: str, place: Path, *deadly: int, lines: int = 0) -> list[int]:
    """The slots that a child has acknowledged before it was killed."""
    words = [sys.executable, CHILD, kind, os.fspath(place), *map(str, deadly)]
    paths = os.pathsep.join([str(Path(CHILD).parents[1]), os.environ.get("PYTHONPATH", "")])
    child = subprocess.Popen(words, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": paths})
    try:
        assert child.stdout is not None
        said = [child.stdout.readline() for _ in range(lines)]
        if not deadly:
            child.kill()
        said += child.stdout.readlines()
    finally:
        child.wait() if deadly else child.kill()
        child.communicate()
    assert child.returncode == -9
    return [int(line) for line in said if line.endswith(b"\n")]


def slots_of(kind: str, place: Path) -> tuple[float, int]:
    """The mark, and how many tasks there are."""
    opens, where = STORES[kind], (os.fspath(place), time.time)
    store, reader = opens.store(*where), opens.reader(*where)
    try:
        (known,) = answer(reader, Schedules())
        assert known.alive == tuple(sorted({row.id for row in Reading(reader).tasks(EVERY)}))
        return known.mark, len(known.alive)
    finally:
        reader.close()
        store.close()


@pytest.mark.parametrize("kind", STORES)
def test_a_kill_at_any_moment_loses_no_slot_and_runs_none_twice(kind: str, tmp_path: Path) -> None:
    said = run(kind, tmp_path, lines=2)
    first = said[0]
    for lines in range(12):
        mark, tasks = slots_of(kind, tmp_path)
        assert tasks == mark - first + 1, "each slot up to the mark has one task"
        assert mark in (said[-1], said[-1] + 1)
        for deadly in (0, 1):
            assert run(kind, tmp_path, deadly) == []
            assert slots_of(kind, tmp_path) == (mark, tasks)
        said = run(kind, tmp_path, lines=1 + lines % 3)
        assert said[0] == mark + 1
