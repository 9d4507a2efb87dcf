"""What every store must show: order, paging, events, counters and groups, always as committed."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from taskd import errors
from taskd.errors import LimitReached
from taskd.model.task import ENDED, Budgets, State
from taskd.store.api import (
    Cancel,
    Claim,
    Filter,
    Group,
    Hold,
    Operation,
    Retry,
    Settle,
    Share,
    SubmitAll,
    Wake,
)

WAITING = {State.QUEUED, State.SCHEDULED, State.HELD}


def ids(rows: list[Any]) -> list[int]:
    return [row.id for row in rows]


# Order and paging


def test_ready_tasks_come_by_priority_and_then_in_order_of_submission(bench: Any) -> None:
    low = bench.submit(priority=-1)
    first, second = bench.submit(), bench.submit()
    high = bench.submit(priority=9)
    bench.submit(queue="other", priority=99)
    bench.submit(priority=99, run_at=9e9)
    assert ids(bench.reader.ready("default", 10)) == [high, first, second, low]
    assert ids(bench.reader.ready("default", 2)) == [high, first]
    assert bench.reader.ready("unheard", 10) == []


def test_a_requeued_task_is_ready_again_in_its_old_place(bench: Any) -> None:
    first, second = bench.submit(), bench.submit()
    bench.claim(first)
    assert ids(bench.reader.ready("default", 10)) == [second]
    bench.settle(first, State.QUEUED)
    assert ids(bench.reader.ready("default", 10)) == [first, second]


def test_running_tasks_are_paged_by_id(bench: Any) -> None:
    tasks = [bench.in_state(State.RUNNING) for _ in range(5)]
    bench.submit()
    assert ids(bench.reader.running(0, 3)) == tasks[:3]
    assert ids(bench.reader.running(tasks[2], 3)) == tasks[3:]


def test_tasks_are_listed_newest_first_and_paged(bench: Any) -> None:
    tasks = [bench.submit() for _ in range(5)]
    assert ids(bench.reader.tasks(Filter(limit=2))) == [tasks[4], tasks[3]]
    assert ids(bench.reader.tasks(Filter(before=tasks[3], limit=2))) == [tasks[2], tasks[1]]
    assert ids(bench.reader.tasks(Filter(before=1 << 70))) == tasks[::-1]


def test_every_filter_narrows_a_list_alone_and_together(bench: Any) -> None:
    made = []
    for state in State:
        for owner, queue, name in ((1, "a", "x"), (2, "a", "y"), (1, "b", "y")):
            made.append(bench.in_state(state, owner=owner, queue=queue, name=name))
    rows = [bench.row(task) for task in reversed(made)]
    for owner in (None, 1, 2, 3):
        for queue in (None, "a", "b"):
            for name in (None, "x", "y"):
                for state in (None, *State):
                    wanted = [
                        row.id
                        for row in rows
                        if owner in (None, row.owner)
                        and queue in (None, row.queue)
                        and name in (None, row.name)
                        and state in (None, row.state)
                    ]
                    found = bench.reader.tasks(Filter(owner, state, queue, name))
                    assert ids(found) == wanted


def test_the_next_due_time_is_the_earliest_of_the_scheduled(bench: Any) -> None:
    bench.submit()
    assert bench.reader.next_due() is None
    late, early = bench.submit(run_at=7000.0), bench.submit(run_at=6000.0)
    assert bench.reader.next_due() == 6000.0
    bench.cancel(early)
    assert bench.reader.next_due() == 7000.0
    bench.cancel(late)
    assert bench.reader.next_due() is None


@pytest.mark.parametrize("number", [0, -1, 17, 1 << 63, 1 << 200])
def test_an_unknown_task_is_nothing_to_a_reader(bench: Any, number: int) -> None:
    bench.submit()
    assert bench.reader.task(number) is None
    assert bench.reader.saved(number) is None
    assert bench.reader.result(number) is None
    assert bench.reader.events([number], 0, 10) == []
    with pytest.raises(errors.UnknownTask, match=f"^no task {number}$"):
        bench.reader.args(number)


def test_a_reader_sees_each_commit_at_once(bench: Any) -> None:
    for count in range(1, 20):
        bench.submit()
        assert bench.reader.counts() == {("default", State.QUEUED): count}
        assert len(bench.reader.tasks(Filter())) == count


def test_all_is_there_after_closing_and_opening(bench: Any) -> None:
    task = bench.submit(key="k", name="import")
    bench.ended(task, State.HELD, saved=b"s", saved_version=3, reason="why")
    before = bench.row(task), bench.reader.counts(), bench.reader.groups()
    events = bench.reader.events([task], 0, 99)
    bench.reopen()
    assert (bench.row(task), bench.reader.counts(), bench.reader.groups()) == before
    assert (bench.reader.events([task], 0, 99), bench.reader.saved(task)) == (events, b"s")
    assert bench.submit() > task


def test_large_values_come_back_whole(bench: Any) -> None:
    args, saved, result = (
        bytes([n]) * size for n, size in ((1, 1 << 20), (2, 16 << 20), (3, 9999))
    )
    task = bench.submit(args=args)
    bench.ended(task, State.QUEUED, saved=saved, saved_version=1)
    assert (bench.reader.args(task), bench.reader.saved(task)) == (args, saved)
    bench.ended(task, State.SUCCEEDED, result=result)
    assert bench.reader.result(task) == result


# Events


def test_the_time_that_tasks_ran_leaves_out_what_they_waited(bench: Any) -> None:
    """Each operation is a second later than the one before."""
    never, held, running, ended = (bench.submit() for _ in range(4))
    bench.claim(held)
    bench.settle(held, State.QUEUED)
    bench.submit()
    bench.claim(held)
    bench.submit()
    bench.settle(held, State.HELD)
    bench.ended(ended, State.SUCCEEDED)
    bench.claim(running)
    assert bench.reader.ran([never, held, running, ended, 99, -1], bench.now + 6) == {
        held: 1.0 + 2.0,
        running: 7.0,
        ended: 1.0,
    }
    assert bench.reader.ran([running], bench.now - 100) == {running: 0.0}
    assert bench.reader.ran([], bench.now) == {}


def test_every_state_change_is_a_numbered_event_with_attempt_revision_and_reason(
    bench: Any,
) -> None:
    task = bench.submit(at=1.0)
    bench.one(Claim(task, b"w", "r1", 2.0))
    bench.one(Settle(task, 1, State.SCHEDULED, 3.0, Budgets(1), reason="it raised", run_at=5.0))
    bench.one(Wake(6.0, 1))
    bench.one(Claim(task, b"w", "r2", 7.0))
    bench.one(Settle(task, 2, State.HELD, 8.0, Budgets(), reason="three crashes"))
    bench.one(Retry(task, None, 9.0))
    bench.one(Hold(task, "unknown name", 10.0))
    bench.one(Cancel(task, None, 11.0))
    events = bench.reader.events([task], 0, 99)
    assert [event[2:] for event in events] == [
        (1.0, State.QUEUED, 0, None, None),
        (2.0, State.RUNNING, 1, "r1", None),
        (3.0, State.SCHEDULED, 1, "r1", "it raised"),
        (6.0, State.QUEUED, 1, "r1", None),
        (7.0, State.RUNNING, 2, "r2", None),
        (8.0, State.HELD, 2, "r2", "three crashes"),
        (9.0, State.QUEUED, 2, "r2", None),
        (10.0, State.HELD, 2, "r2", "unknown name"),
        (11.0, State.CANCELLED, 2, "r2", None),
    ]
    assert {event.task for event in events} == {task}


def test_event_numbers_grow_over_all_tasks_and_are_read_in_pages(bench: Any) -> None:
    first, second = bench.submit(), bench.submit()
    for task in (second, first, second):
        bench.claim(task)
    numbers = {task: bench.reader.events([task], 0, 99) for task in (first, second)}
    merged = sorted(event.number for events in numbers.values() for event in events)
    assert len(set(merged)) == 4
    assert numbers[first][0].number < numbers[second][0].number
    assert numbers[second][1].number < numbers[first][1].number
    assert bench.reader.events([first], numbers[first][0].number, 99) == numbers[first][1:]
    assert bench.reader.events([first], 0, 1) == numbers[first][:1]
    assert bench.reader.events([first], 1 << 70, 1) == []


def test_events_of_several_tasks_come_in_one_order_and_in_pages(bench: Any) -> None:
    tasks = [bench.submit() for _ in range(3)]
    for task in (tasks[2], tasks[0], tasks[1]):
        bench.claim(task)
    wanted = [tasks[0], tasks[2]]
    events = sorted(
        (event for task in wanted for event in bench.reader.events([task], 0, 99)),
        key=lambda event: event.number,
    )
    assert bench.reader.events(wanted, 0, 99) == events
    assert bench.reader.events(wanted, 0, 2) == events[:2]
    assert bench.reader.events([*wanted, 999, 1 << 70, -1], events[1].number, 99) == events[2:]
    assert bench.reader.events(tasks[:1], 0, 99) == [e for e in events if e.task == tasks[0]]
    assert bench.reader.events(wanted, 1 << 70, 9) == bench.reader.events([], 0, 9) == []


def test_the_number_of_an_event_is_used_once_also_over_reopening(bench: Any) -> None:
    task = bench.submit()
    last = bench.reader.events([task], 0, 9)[-1].number
    bench.reopen()
    bench.claim(task)
    assert bench.reader.events([task], 0, 9)[-1].number > last


def test_an_operation_says_whose_events_changed(bench: Any) -> None:
    (new,) = bench.apply(bench.new())
    task = new.result.task
    assert new.task == task
    assert bench.apply(Claim(task, b"w", "r", 1.0))[0].task == task
    assert bench.apply(Cancel(task, None, 1.0))[0].task is None
    assert bench.apply(Settle(task, 1, State.FAILED, 1.0, Budgets()))[0].task == task
    assert bench.apply(Cancel(task, None, 1.0))[0].task is None
    assert bench.apply(Retry(task, None, 1.0))[0].task == task
    assert bench.apply(Hold(task, "why", 1.0))[0].task == task


# Counters and groups


def test_a_queue_is_told_of_while_something_is_in_it(bench: Any) -> None:
    bench.in_state(State.RUNNING, queue="runs")
    first, second = bench.submit(queue="waits"), bench.submit(queue="a")
    bench.in_state(State.SCHEDULED, queue="later")
    assert bench.reader.queued("", 9) == ["a", "waits"]
    assert bench.reader.queued("", 1) == ["a"]
    assert bench.reader.queued("a", 9) == ["waits"]
    assert sorted(bench.reader.busy(9)) == ["a", "runs", "waits"]
    assert len(bench.reader.busy(2)) == 2
    assert bench.reader.states("waits") == {State.QUEUED: 1}
    bench.claim(first)
    bench.cancel(second)
    assert bench.reader.queued("", 9) == []
    assert sorted(bench.reader.busy(9)) == ["runs", "waits"]
    assert bench.reader.states("waits") == {State.RUNNING: 1}
    assert bench.reader.states("a") == {State.CANCELLED: 1}
    assert bench.reader.states("none") == {}
    assert bench.reader.states() == {State.RUNNING: 2, State.SCHEDULED: 1, State.CANCELLED: 1}


def test_groups_count_what_waits_by_name_version_and_shape(bench: Any) -> None:
    queued = bench.submit(name="a", version=1, shape="x,y")
    bench.submit(name="a", version=1, shape="x,y", run_at=9e9)
    bench.in_state(State.HELD, name="a", version=1, shape="x,y")
    other = bench.submit(name="a", version=1, shape="x")
    bench.in_state(State.RUNNING, name="a", version=1, shape="x,y")
    bench.in_state(State.FAILED, name="b", version=1, shape="")
    assert set(bench.reader.groups()) == {
        Group("a", 1, "x,y", 3, queued),
        Group("a", 1, "x", 1, other),
    }


def test_a_groups_version_is_that_of_what_is_saved(bench: Any) -> None:
    task = bench.submit(version=1, shape="x")
    bench.ended(task, State.QUEUED, saved=b"s", saved_version=2)
    assert bench.reader.groups() == [Group("index", 2, "x", 1, task)]
    bench.claim(task)
    assert bench.reader.groups() == []
    bench.settle(task, State.QUEUED)
    assert bench.reader.groups() == [Group("index", 2, "x", 1, task)]
    bench.ended(task, State.HELD, saved=b"")
    assert bench.reader.groups() == [Group("index", 1, "x", 1, task)]


def test_a_groups_example_is_one_that_still_waits(bench: Any) -> None:
    tasks = [bench.submit() for _ in range(3)]
    for gone in (0, 1):
        bench.claim(tasks[gone])
        (group,) = bench.reader.groups()
        assert group.example in tasks[gone + 1 :]


@pytest.mark.parametrize("seed", range(4))
def test_counters_and_groups_equal_a_full_count_after_random_operations(
    bench: Any, seed: int
) -> None:
    chance = random.Random(seed)
    shapes: dict[int, str] = {}
    for _ in range(60):
        batch = [_random_operation(bench, chance, len(shapes)) for _ in range(20)]
        for operation, applied in zip(batch, bench.apply(*batch), strict=True):
            _note_shapes(shapes, operation, applied.result)
        if chance.random() < 0.1:
            bench.reopen()
        _check_counters(bench, shapes)
        _check_shares(bench)
    assert {state for _, state in bench.reader.counts()} == set(State)


def _check_shares(bench: Any) -> None:
    """By what is refused, which changes nothing: one more of each of these owners."""
    for owner in (1, 2):
        rows = [row for row in bench.reader.tasks(Filter(limit=100_000)) if row.owner == owner]
        live = [row for row in rows if row.state not in ENDED]
        size = sum(len(bench.reader.args(row.id)) for row in live)
        for share, has in (
            (Share(len(live), None), f"{len(live):,} tasks"),
            (Share(None, size), f"{size:,} bytes"),
        ):
            with pytest.raises(LimitReached, match=f"user {owner} has {has}"):
                bench.submit(owner=owner, share=share)


def _random_operation(bench: Any, chance: random.Random, tasks: int) -> Operation:
    task = chance.randint(1, tasks + 2)
    row = bench.reader.task(task)
    attempt = chance.choice([0 if row is None else row.attempt] * 9 + [1])
    state = chance.choice([each for each in State if each is not State.RUNNING])
    saved, version = chance.choice([(None, None), (b"", None), (b"s", 1), (b"s", 2)])
    end = Settle(task, attempt, state, 5.0, Budgets(), saved=saved, saved_version=version)
    return chance.choice(
        [
            _random_submit(bench, chance),
            SubmitAll(tuple(_random_submit(bench, chance) for _ in range(3))),
            Claim(task, b"w", "r", 5.0),
            Claim(task, b"w", "r", 5.0),
            end._replace(run_at=chance.choice([10.0, 9e9])),
            end._replace(run_at=10.0),
            Cancel(task, chance.choice([None, 1]), 5.0),
            Retry(task, None, 5.0),
            Hold(task, "why", 5.0),
            Wake(20.0, chance.randint(1, 5)),
        ]
    )


def _random_submit(bench: Any, chance: random.Random) -> Any:
    return bench.new(
        owner=chance.choice([1, 2]),
        name=chance.choice("ab"),
        version=chance.choice([1, 2]),
        shape=chance.choice(["", "x"]),
        args=b"a" * chance.randint(1, 3),
        queue=chance.choice("pq"),
        key=chance.choice([None, None, "k", "l", ""]),
        run_at=chance.choice([None, None, 9e9]),
    )


def _note_shapes(shapes: dict[int, str], operation: Operation, result: Any) -> None:
    news = operation.tasks if isinstance(operation, SubmitAll) else (operation,)
    answers = result if isinstance(result, list) else [result]
    for new, answer in zip(news, answers, strict=False):
        if getattr(answer, "created", False):
            shapes[answer.task] = new.shape


def _check_counters(bench: Any, shapes: dict[int, str]) -> None:
    rows = bench.reader.tasks(Filter(limit=100_000))
    assert {row.id for row in rows} == set(shapes)
    assert bench.reader.counts() == Counter((row.queue, row.state) for row in rows)
    assert bench.reader.states() == Counter(row.state for row in rows)
    by_version: Counter[tuple[str, int]] = Counter()
    for group in bench.reader.groups():
        by_version[group.name, group.version] += group.waiting
    assert bench.reader.waiting() == by_version
    alike = {}
    for row in (row for row in rows if row.state in WAITING):
        version = row.version if row.saved_version is None else row.saved_version
        alike.setdefault((row.name, version, shapes[row.id]), set()).add(row.id)
    groups = {group[:3]: group for group in bench.reader.groups()}
    assert {key: group.waiting for key, group in groups.items()} == {
        key: len(tasks) for key, tasks in alike.items()
    }
    assert all(group.example in alike[key] for key, group in groups.items())
