"""What every store must show of events: each change once, exact numbers, and the time that ran."""

from __future__ import annotations

import random
from typing import Any

import pytest
from support import taking
from support.answers import answer, parts
from support.later.writers import SeveralWriters

from taskd.model.task import Budgets, State
from taskd.store.api import (
    Cancel,
    HoldKind,
    Retry,
    Settle,
)
from taskd.store.queries import BEGIN, Events, NextEvent, Reader
from taskd.store.values import Kind


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
    bench.one(taking.claim(task, "r1", 2.0))
    bench.one(Settle(task, 1, State.SCHEDULED, 3.0, Budgets(1), reason="it raised", delay=5.0))
    bench.wake(1, after=6.0)
    woken = bench.now
    bench.one(taking.claim(task, "r2", 7.0))
    bench.one(Settle(task, 2, State.HELD, 8.0, Budgets(), reason="three crashes"))
    bench.one(Retry(task, None, 9.0))
    bench.one(HoldKind("default", Kind("index", None), "unknown name", 9, 10.0))
    bench.one(Cancel(task, None, 11.0))
    events = bench.reader.events([task], 0, 99)
    assert [event[2:] for event in events] == [
        (1.0, State.QUEUED, 0, None, None),
        (2.0, State.RUNNING, 1, "r1", None),
        (3.0, State.SCHEDULED, 1, "r1", "it raised"),
        (woken, State.QUEUED, 1, "r1", None),
        (7.0, State.RUNNING, 2, "r2", None),
        (8.0, State.HELD, 2, "r2", "three crashes"),
        (9.0, State.QUEUED, 2, "r2", None),
        (10.0, State.HELD, 2, "r2", "unknown name"),
        (11.0, State.CANCELLED, 2, "r2", None),
    ]
    assert {event.task for event in events} == {task}


def test_event_numbers_grow_over_all_tasks(bench: Any) -> None:
    first, second = bench.submit(), bench.submit()
    for task in (second, first, second):
        bench.claim(task)
    numbers = {task: bench.reader.events([task], 0, 99) for task in (first, second)}
    merged = sorted(event.number for events in numbers.values() for event in events)
    assert len(set(merged)) == 4
    assert numbers[first][0].number < numbers[second][0].number
    assert numbers[second][1].number < numbers[first][1].number
    assert bench.reader.events([first], numbers[first][0].number, 99) == numbers[first][1:]
    assert bench.reader.events([first], 1 << 70, 1) == []


def test_events_of_several_tasks_come_in_one_order(bench: Any) -> None:
    tasks = [bench.submit() for _ in range(3)]
    for task in (tasks[2], tasks[0], tasks[1]):
        bench.claim(task)
    wanted = [tasks[0], tasks[2]]
    events = sorted(
        (event for task in wanted for event in bench.reader.events([task], 0, 99)),
        key=lambda event: event.number,
    )
    assert bench.reader.events(wanted, 0, 99) == events
    assert bench.reader.events([*wanted, 999, 1 << 70, -1], events[1].number, 99) == events[2:]
    assert bench.reader.events(tasks[:1], 0, 99) == [e for e in events if e.task == tasks[0]]
    assert bench.reader.events(wanted, 1 << 70, 9) == bench.reader.events([], 0, 9) == []


@pytest.fixture(params=["its own", "as of several writers"])
def told(request: pytest.FixtureRequest, bench: Any) -> Reader:
    """The events of the store, and the same as a store with several writers would tell them."""
    own: Reader = bench.reader.reader
    return own if request.param == "its own" else SeveralWriters(own)


def follow(told: Reader, tasks: tuple[int, ...], token: str, rounds: int = 1) -> list[NextEvent]:
    """What a stream tells that goes on from ``token``, and asks so many times anew."""
    found: list[NextEvent] = []
    for _ in range(rounds):
        found += [each for some in parts(told, Events(tasks, token)) for each in some]
        token = found[-1].token if found else token
    return found


def check_each_once(told: list[NextEvent], bench: Any, tasks: tuple[int, ...]) -> None:
    for task in tasks:
        numbers = [each.event.number for each in told if each.event.task == task]
        assert numbers == [event.number for event in bench.reader.events([task])]
    assert {each.event.task for each in told} <= set(tasks)


def test_who_goes_on_from_any_event_gets_the_others_each_once(bench: Any, told: Reader) -> None:
    tasks = tuple(bench.submit() for _ in range(4))
    for task in (*tasks, tasks[2], tasks[0], tasks[2]):
        bench.claim(task)
        bench.settle(task, State.QUEUED)
    whole = follow(told, tasks[:3], BEGIN)
    check_each_once(whole, bench, tasks[:3])
    for index, each in enumerate(whole):
        assert told.token(each.token) == each.token
        rest = follow(told, tasks[:3], each.token)
        check_each_once(whole[: index + 1] + rest, bench, tasks[:3])
    assert told.token(BEGIN) == BEGIN
    assert told.token("what no store has said") is None


def test_a_follower_misses_and_repeats_nothing_while_others_write(bench: Any, told: Reader) -> None:
    """It asks between any two operations, and takes a part of the answer at a time."""
    tasks = tuple(bench.submit() for _ in range(5))
    seen: list[NextEvent] = []

    def take_a_part() -> None:
        part = answer(told, Events(tasks, seen[-1].token if seen else BEGIN))
        seen.extend(part.found[: random.randint(0, len(part.found))])

    for _ in range(12):
        task = random.choice(tasks)
        bench.claim(task)
        take_a_part()
        bench.settle(task, random.choice([State.QUEUED, State.HELD]))
        take_a_part()
        if bench.row(task).state is State.HELD:
            bench.retry(task)
    seen += follow(told, tasks, seen[-1].token if seen else BEGIN, rounds=2)
    check_each_once(seen, bench, tasks)


def test_a_token_is_as_long_for_many_tasks_as_for_one(bench: Any, told: Reader) -> None:
    tasks = tuple(bench.submit() for _ in range(50))
    (one, *_), many = follow(told, tasks[-1:], BEGIN), follow(told, tasks, BEGIN)
    assert max(len(each.token) for each in many) <= len(one.token) + 2 * len(str(tasks[-1]))


def test_a_token_lasts_as_long_as_the_store(bench: Any) -> None:
    tasks = tuple(bench.submit() for _ in range(3))
    *_, last = follow(bench.reader.reader, tasks, BEGIN)
    bench.reopen()
    bench.claim(tasks[1])
    (event,) = follow(bench.reader.reader, tasks, last.token)
    assert (event.event.task, event.event.state) == (tasks[1], State.RUNNING)


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
    assert [each.task for each in bench.one(taking.claim(task))] == [task]
    assert bench.apply(Cancel(task, None, 1.0))[0].task is None
    assert bench.apply(Settle(task, 1, State.FAILED, 1.0, Budgets()))[0].task == task
    assert bench.apply(Cancel(task, None, 1.0))[0].task is None
    assert bench.apply(Retry(task, None, 1.0))[0].task == task
    (held,) = bench.apply(HoldKind("default", Kind("index", None), "why", 9, 1.0))
    assert (held.result, held.task) == ([task], None)
