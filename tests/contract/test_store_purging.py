"""What every store must do with tasks that are over: Prepare, Purge, Forget and their queries."""

from __future__ import annotations

import os
from math import inf
from typing import Any

import pytest
from support import taking

from taskd import errors
from taskd.model.retention import Ages
from taskd.model.task import ENDED, State
from taskd.store.api import (
    HORIZON,
    Cancelled,
    Forget,
    Prepare,
    Purge,
    SubmitAll,
    Submitted,
)
from taskd.store.queries import Expired, Filter, Purged

DAY = 86400.0
ROOM = 1 << 30
LIVE = sorted(state for state in State if state not in ENDED)
OVER = sorted(ENDED)


def ages(usual: float = 0.0, **queues: float) -> Ages:
    each = {queue: dict.fromkeys(ENDED, age) for queue, age in queues.items()}
    return Ages(dict.fromkeys(ENDED, usual), each)


def expired(bench: Any, wanted: Ages, limit: int = 100) -> list[int]:
    found: list[int] = bench.reader.all(Expired(wanted, limit))
    return found


def left(bench: Any) -> list[int]:
    found: list[int] = bench.reader.all(Purged(100))
    return found


def purge(bench: Any, *tasks: int, of: Ages | None = None, room: int = ROOM) -> list[int]:
    found: list[int] = bench.one(Purge(tasks, of, room))
    return found


def forget(bench: Any, *tasks: int, limit: int = 1000) -> list[int]:
    found: list[int] = bench.one(Forget(tasks, limit))
    return found


def test_a_store_of_this_version_may_purge_at_once(bench: Any) -> None:
    assert bench.one(Prepare(7 * DAY)) == 0
    bench.reopen()
    assert bench.one(Prepare(7 * DAY)) == 0


@pytest.mark.parametrize("state", OVER)
def test_a_task_that_is_purged_is_unknown_and_counted_nowhere(bench: Any, state: State) -> None:
    other = bench.submit()
    task = bench.in_state(state, result=b"r", key="k")
    owned = bench.reader.states()
    assert purge(bench, task) == [task]
    assert bench.reader.task(task) is None
    assert bench.reader.told(task) == []
    assert bench.reader.saved(task) is None
    assert [row.id for row in bench.reader.tasks(Filter(limit=9))] == [other]
    assert bench.reader.states() == {State.QUEUED: 1} != owned
    with pytest.raises(errors.UnknownTask):
        bench.retry(task)
    with pytest.raises(errors.UnknownTask):
        bench.cancel(task)
    assert purge(bench, task) == []


@pytest.mark.parametrize("state", LIVE)
def test_a_task_that_is_not_over_is_passed_over(bench: Any, state: State) -> None:
    task, over = bench.in_state(state), bench.in_state(State.SUCCEEDED)
    before = bench.row(task), bench.reader.events([task])
    assert purge(bench, task, over, 17, 0, 1 << 70) == [over]
    assert (bench.row(task), bench.reader.events([task])) == before


def test_a_task_is_purged_once_it_has_been_over_for_its_age(bench: Any) -> None:
    task = bench.in_state(State.FAILED)
    ended = bench.row(task).ended
    bench.now = ended + DAY - 2
    assert (purge(bench, task, of=ages(DAY)), expired(bench, ages(DAY))) == ([], [])
    bench.now = ended + DAY
    assert expired(bench, ages(DAY)) == [task]
    assert purge(bench, task, of=ages(DAY)) == [task]


def test_an_age_is_that_of_the_state_and_of_the_queue_where_that_has_its_own(bench: Any) -> None:
    usual = {State.SUCCEEDED: 1e3, State.FAILED: 2e3, State.CANCELLED: inf}
    of = Ages(usual, {"long": dict.fromkeys(ENDED, 3e3), "ever": dict.fromkeys(ENDED, inf)})
    tasks = {}
    for queue in ("short", "long", "ever"):
        for state in OVER:
            task = bench.submit(queue=queue)
            if state is State.CANCELLED:
                bench.cancel(task)
            else:
                bench.one(taking.claim(task, queue=queue))
                bench.settle(task, state)
            tasks[queue, state] = task
    begun, seen = bench.now, []
    for after in (500.0, 1500.0, 2500.0, 3500.0, 1e9):
        bench.now = begun + after
        wanted = expired(bench, of)
        assert sorted(purge(bench, *tasks.values(), of=of)) == sorted(wanted)
        seen.append({where for where, task in tasks.items() if task in wanted})
    short = [{("short", State.SUCCEEDED)}, {("short", State.FAILED)}]
    assert seen == [set(), *short, {("long", state) for state in OVER}, set()]
    assert len(bench.reader.tasks(Filter(limit=99))) == 4


def test_the_oldest_of_a_queue_expire_first_up_to_the_limit(bench: Any) -> None:
    tasks = [bench.submit() for _ in range(5)]
    for task in reversed(tasks):
        bench.ended(task, State.SUCCEEDED)
    bench.now += 9
    assert expired(bench, ages(), limit=3) == tasks[:1:-1]
    assert expired(bench, ages(), limit=9) == tasks[::-1]


def test_what_expires_is_found_in_however_many_queues(bench: Any) -> None:
    tasks = []
    for number in range(400):
        tasks.append(bench.submit(queue=f"q{number:03}"))
    for task in tasks[::2]:
        bench.cancel(task)
    bench.now += 9
    assert expired(bench, ages(q000=inf), limit=1000) == tasks[2::2]


def test_a_retry_begins_the_age_anew(bench: Any) -> None:
    task = bench.in_state(State.FAILED)
    bench.now += 9
    bench.retry(task)
    assert (expired(bench, ages(5)), purge(bench, task)) == ([], [])
    bench.ended(task, State.FAILED)
    assert (expired(bench, ages(5)), purge(bench, task, of=ages(5))) == ([], [])


def test_after_so_many_bytes_no_more_are_purged_but_one_is(bench: Any) -> None:
    tasks = [bench.submit(args=bytes(1000)) for _ in range(4)]
    for task in tasks:
        bench.ended(task, State.SUCCEEDED, result=bytes(500))
    assert purge(bench, *tasks, room=1) == tasks[:1]
    assert purge(bench, *tasks, room=1501) == tasks[1:3]


def test_what_an_owner_has_is_not_changed_by_what_was_over(bench: Any) -> None:
    from taskd.store.api import Share

    live = bench.submit(owner=7)
    over = bench.submit(owner=7)
    bench.cancel(over)
    assert purge(bench, over) == [over]
    with pytest.raises(errors.LimitReached):
        bench.submit(owner=7, share=Share(1, None))
    bench.cancel(live)
    assert bench.submit(owner=7, share=Share(1, None))


def test_a_purged_task_is_told_until_nothing_is_left_of_it(bench: Any) -> None:
    tasks = [bench.in_state(State.SUCCEEDED) for _ in range(3)]
    bench.now += HORIZON
    assert left(bench) == []
    purge(bench, *tasks)
    assert left(bench) == tasks
    bench.reopen()
    assert forget(bench, tasks[1], 17, 1 << 70) == [tasks[1]]
    assert left(bench) == [tasks[0], tasks[2]]
    assert forget(bench, *tasks) == [tasks[0], tasks[2]]
    assert left(bench) == []
    assert bench.reader.events(tasks) == []


def test_of_a_live_task_nothing_is_forgotten(bench: Any) -> None:
    task, over = bench.submit(), bench.in_state(State.FAILED)
    assert forget(bench, task, over) == []
    assert len(bench.reader.events([task, over])) == 4


def test_a_task_with_many_events_is_forgotten_by_and_by(bench: Any) -> None:
    task = bench.submit()
    for _ in range(10):
        bench.ended(task, State.QUEUED)
    bench.cancel(task)
    bench.now += HORIZON
    purge(bench, task)
    steps = 0
    while left(bench):
        forget(bench, task, limit=5)
        steps += 1
    assert steps == 5  # 22 events, and a submission id
    assert bench.reader.events([task]) == []


@pytest.mark.parametrize("is_forgotten", [False, True])
def test_a_submission_of_a_purged_task_is_known_up_to_the_horizon(
    bench: Any, is_forgotten: bool
) -> None:
    new, again = bench.new(key="k", made=bench.now), bench.new(key="k", made=bench.now)
    task = bench.one(new).task
    assert bench.one(again) == Submitted(task, False)
    bench.ended(task, State.SUCCEEDED)
    ended = bench.row(task).ended
    purge(bench, task)
    if is_forgotten:
        assert forget(bench, task) == [task]
        assert left(bench) == []
    bench.now = ended + HORIZON - 2
    assert bench.one(new) == Submitted(task, False)
    assert bench.one(SubmitAll((again,))) == [Submitted(task, False)]
    with pytest.raises(errors.Refused, match="another user's"):
        bench.one(new._replace(owner=7))
    bench.now = ended + HORIZON
    assert left(bench) == [task]
    assert forget(bench, task) == [task]
    assert left(bench) == []
    for each in (new, again):
        with pytest.raises(errors.TooOld, match="made 7 days ago"):
            bench.one(each)
    assert bench.reader.states() == {}


def test_an_unknown_submission_is_judged_by_when_it_was_made(bench: Any) -> None:
    bench.now = 2 * HORIZON
    with pytest.raises(errors.TooOld):
        bench.submit(made=bench.now - HORIZON - 1)
    assert bench.submit(made=bench.now - HORIZON + 9)
    assert bench.submit(made=bench.now + 9 * DAY)  # the clock was set
    assert bench.submit(submission=bytes(16))  # it says nothing of a time


def test_one_submission_that_is_too_old_refuses_all_of_its_request(bench: Any) -> None:
    bench.now = 2 * HORIZON
    (applied,) = bench.apply(SubmitAll((bench.new(), bench.new(made=1.0))))
    assert isinstance(applied.result, errors.TooOld)
    assert bench.reader.states() == {}


def test_a_known_submission_is_answered_however_old_it_is(bench: Any) -> None:
    new = bench.new(made=bench.now)
    task = bench.one(new).task
    bench.now += 9 * HORIZON
    assert bench.one(new) == Submitted(task, False)


def test_a_key_of_a_purged_task_is_free(bench: Any) -> None:
    task = bench.in_state(State.SUCCEEDED, key="k")
    again = bench.submit(key="k")
    assert purge(bench, task, again) == [task]
    assert bench.one(bench.new(key="k")) == Submitted(again, False)


def test_ids_and_event_numbers_of_purged_tasks_are_not_given_again(bench: Any) -> None:
    task = bench.in_state(State.SUCCEEDED)
    last = bench.reader.events([task])[-1].number
    bench.now += HORIZON
    purge(bench, task)
    forget(bench, task)
    bench.reopen()
    new = bench.submit(submission=os.urandom(16))
    assert new > task
    assert bench.reader.events([new])[0].number > last


def test_a_stream_goes_on_behind_the_events_of_a_purged_task(bench: Any) -> None:
    gone, stays = bench.submit(), bench.submit()
    bench.cancel(gone)
    told = bench.reader.events([gone, stays])[-1].number
    bench.now += HORIZON
    purge(bench, gone)
    forget(bench, gone)
    assert bench.reader.events([gone, stays], told) == []
    assert bench.cancel(stays) == Cancelled(State.CANCELLED, State.QUEUED)
    assert [event.task for event in bench.reader.events([gone, stays], told)] == [stays]
