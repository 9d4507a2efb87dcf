"""What every store must do about limits: never more than the number, and nobody left behind."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from support import taking
from support.answers import answer

from taskd.errors import Refused
from taskd.model.task import Budgets, State
from taskd.protocol.submission import REPLACE
from taskd.store.api import Alter, Cancel, HoldKind, Offer, Settle, Shift, Take, Wake
from taskd.store.limit_api import (
    LIMITS,
    QUEUE,
    TASK,
    Block,
    Release,
    TakeUpLimits,
)
from taskd.store.queries import LimitsInForce, NextDue, Ready, WhyBlocked
from taskd.store.values import Kind, Limit

NAMES = ("index", "other")
ROUTES = {Kind(name, saved): 1 for name in NAMES for saved in (None, 2)}


def limit(
    name: str, concurrency: int | None = None, every: float | None = None, burst: int = 1
) -> Limit:
    return Limit(name, concurrency, every, burst, "r1")


def declare(bench: Any, *limits: Limit, ended: tuple[str, ...] = ()) -> Any:
    changes = bench.one(TakeUpLimits(limits, ended))
    release(bench)
    return changes


def release(bench: Any) -> None:
    after: str | None = ""
    while after is not None:
        after = bench.one(Release(after or None, 3))


def operation(bench: Any, count: int, queue: str = "default") -> Take:
    offers = tuple(Offer(taking.new_worker(), 1, "r1") for _ in range(count))
    return Take(queue, ROUTES, {}, offers, 1 << 20, bench.now)


def take(bench: Any, count: int = 9, queue: str = "default") -> list[int]:
    return [taken.task for taken in bench.one(operation(bench, count, queue))]


def look(bench: Any, limit: int = 99) -> tuple[list[int], list[int]]:
    """What is ready, and what was found that cannot begin."""
    parts = bench.reader.all(Ready("", {}, 99, ROUTES, {}, limit))
    return [each.task for part in parts for _, each in part.tasks], [
        task for part in parts for task in part.blocked
    ]


def settle(bench: Any, task: int, state: State = State.SUCCEEDED, **fields: Any) -> Settle:
    row = bench.row(task)
    return Settle(task, row.attempt, state, bench.now, Budgets(), **fields)


def end(bench: Any, task: int, state: State = State.SUCCEEDED, **fields: Any) -> None:
    bench.one(settle(bench, task, state, **fields))


def test_no_more_than_the_number_hold_a_key(bench: Any) -> None:
    declare(bench, limit("customer", 2))
    seven = [bench.submit(limits=("customer:7",)) for _ in range(4)]
    eight = bench.submit(limits=("customer:8",))
    assert take(bench) == [seven[0], seven[1], eight]
    assert take(bench) == []
    end(bench, seven[1])
    assert take(bench) == [seven[2]]


def test_the_end_of_a_holder_makes_the_best_one_ready_in_the_same_batch(bench: Any) -> None:
    declare(bench, limit("api", 1))
    first = bench.submit(limits=("api",))
    assert take(bench) == [first]
    low, high = bench.submit(limits=("api",)), bench.submit(limits=("api",), priority=5)
    assert look(bench) == ([], [])
    _, taken = bench.apply(settle(bench, first), operation(bench, 1))
    assert [each.task for each in taken.result] == [high]
    end(bench, high, State.FAILED)
    assert look(bench) == ([low], [])


def test_a_task_with_two_keys_needs_both_and_holds_none_while_it_waits(bench: Any) -> None:
    declare(bench, limit("api", 2), limit("customer", 1))
    first = bench.submit(limits=("api", "customer:7"))
    assert take(bench) == [first]
    both = bench.submit(limits=("api", "customer:7"))
    other = bench.submit(limits=("api",))
    assert take(bench) == [other]
    end(bench, first)
    assert take(bench) == [both]


def test_limits_of_a_name_close_it_and_of_a_queue_too(bench: Any) -> None:
    declare(bench, limit(TASK + "index", 1), limit(QUEUE + "far", None, 10.0))
    tasks = [bench.submit() for _ in range(3)]
    other = bench.submit(name="other")
    assert look(bench) == ([tasks[0], other], [])
    assert take(bench) == [tasks[0], other]
    assert look(bench) == ([], [])
    far = [bench.submit(name="other", queue="far") for _ in range(2)]
    assert take(bench, queue="far") == [far[0]]
    assert look(bench) == ([], [])
    assert take(bench, queue="far") == []
    end(bench, tasks[0])
    assert take(bench) == [tasks[1]]
    assert answer(bench.reader, NextDue()) == pytest.approx(10.0 - 3.0)
    bench.wake(9, after=8.0)
    assert take(bench, queue="far") == [far[1]]


def test_a_task_that_moves_keeps_its_places(bench: Any) -> None:
    declare(bench, limit("api", 1), limit(TASK + "other", 1))
    task = bench.submit(name="other", limits=("api",))
    assert take(bench) == [task]
    waits = bench.submit(limits=("api",), priority=9)
    same = bench.submit(name="other", priority=9)
    end(bench, task, State.QUEUED, moves=True, used=1.0)
    assert take(bench) == [task]
    end(bench, task, State.QUEUED, moves=True, used=1.0)
    bench.reopen()
    release(bench)
    assert look(bench)[0] == [task]
    bench.one(Cancel(task, None, bench.now))
    assert sorted(take(bench)) == [waits, same]


def test_a_crashed_or_slept_task_gives_its_place_away(bench: Any) -> None:
    declare(bench, limit("api", 1))
    task, slept = bench.submit(limits=("api",)), bench.submit(limits=("api",), priority=-1)
    assert take(bench) == [task]
    better = bench.submit(limits=("api",), priority=9)
    end(bench, task, State.QUEUED, used=1.0)
    assert take(bench) == [better]
    end(bench, better, State.SCHEDULED, delay=10.0, used=1.0)
    assert take(bench) == [task]
    assert bench.wake(9, after=20.0) == [better]
    assert take(bench) == []
    end(bench, task)
    assert take(bench) == [better]
    end(bench, better)
    assert take(bench) == [slept]


@pytest.mark.parametrize("name", ["api", TASK + "index", QUEUE + "default"])
def test_a_rate_lets_one_go_after_the_other(bench: Any, name: str) -> None:
    """Also over a restart, and by the store's clock alone."""
    declare(bench, limit(name, None, 10.0, 2))
    tasks = [bench.submit(limits=("api",)) for _ in range(5)]
    assert take(bench) == tasks[:2]
    for task in look(bench)[1]:
        bench.one(Block((task,)))
    due = answer(bench.reader, NextDue())
    assert 0 < due <= 10.0
    bench.reopen()
    release(bench)
    assert take(bench) == []
    bench.wake(9, after=answer(bench.reader, NextDue()))
    assert take(bench) == [tasks[2]]
    assert take(bench) == []
    bench.wake(9, after=100.0)
    assert take(bench) == tasks[3:]


def test_a_rate_counts_first_starts_of_each_try(bench: Any) -> None:
    declare(bench, limit("api", None, 1000.0))
    task = bench.submit(limits=("api",))
    assert take(bench) == [task]
    end(bench, task, State.QUEUED, used=1.0)  # a crash
    assert take(bench) == [task]
    end(bench, task, State.QUEUED, moves=True, used=2.0)
    assert take(bench) == [task]
    end(bench, task, State.SCHEDULED, delay=1.0)  # a retry
    bench.wake(9, after=5.0)
    assert take(bench) == []
    bench.wake(9, after=1000.0)
    assert take(bench) == [task]
    end(bench, task, State.FAILED)
    bench.retry(task)
    assert take(bench) == []


def test_a_clock_that_is_set_back_makes_nobody_wait_longer_than_a_period(bench: Any) -> None:
    declare(bench, limit("api", None, 10.0))
    tasks = [bench.submit(limits=("api",)) for _ in range(2)]
    assert take(bench) == tasks[:1]
    look(bench)
    bench.now -= 500
    bench.one(Shift(-501.0))
    bench.now += 10
    bench.one(Wake(9))
    assert take(bench) == tasks[1:]


def test_a_changed_number_reaches_what_waits_at_once(bench: Any) -> None:
    declare(bench, limit("api", 1))
    tasks = [bench.submit(limits=("api",)) for _ in range(9)]
    assert take(bench) == tasks[:1]
    late = [bench.submit(limits=("api",)) for _ in range(2)]
    bench.one(Block(tuple(look(bench)[1])))
    assert look(bench) == ([], [])
    assert declare(bench, limit("api", 3)) == (("api", "changed"),)
    assert take(bench) == tasks[1:3]
    declare(bench, limit("api", 2))
    end(bench, tasks[0])
    assert take(bench) == [], "lowered: nobody is killed, and nobody starts"
    end(bench, tasks[1])
    assert take(bench) == [tasks[3]]
    declare(bench, limit("api", None, None))
    assert take(bench, 20) == tasks[4:] + late


def test_a_limit_that_nobody_declares_any_more_goes_on(bench: Any) -> None:
    declare(bench, limit("api", 1), limit(TASK + "index", 1), limit(QUEUE + "far", None, 1.0))
    declare(bench, limit(TASK + "other", 1))
    found = answer(bench.reader, LimitsInForce())
    assert [(each.name, each.dropped) for each in found] == [
        (TASK + "index", True),
        (TASK + "other", False),
        ("api", True),
    ]
    changes = declare(bench, limit("api", 2), ended=(TASK + "index",))
    assert sorted(changes) == [
        (TASK + "index", "ended"),
        (TASK + "other", "dropped"),
        ("api", "back"),
    ]
    with pytest.raises(Refused):
        declare(bench, *[limit(f"n{n}", 1) for n in range(LIMITS + 1)])


def test_why_a_task_waits(bench: Any) -> None:
    declare(bench, limit("customer", 1))
    first, second = (bench.submit(limits=("customer:7",)) for _ in range(2))
    assert answer(bench.reader, WhyBlocked(second)) is None
    assert take(bench) == [first]
    why = answer(bench.reader, WhyBlocked(second))
    assert (why.key, why.limit.concurrency, why.held) == ("customer:7", 1, 1)
    assert [(each.task, each.revision) for each in why.holders] == [(first, "r1")]
    assert answer(bench.reader, WhyBlocked(first)) is None


@pytest.mark.parametrize("seed", range(3))
def test_the_number_is_never_passed_and_nobody_is_left_behind(bench: Any, seed: int) -> None:
    """Whatever happens to tasks of several keys in several queues. Whoever waits, though a place
    is free for it, is found by a look, or by those that a look finds."""
    chance = random.Random(seed)
    numbers = {"api": 3, "customer": 2, "slow": 1}
    declare(bench, *[limit(*each) for each in numbers.items()], limit(TASK + "other", 2))
    carried = [(), ("api",), ("customer:1",), ("api", "customer:1"), ("customer:2", "slow")]
    tasks: dict[int, tuple[str, ...]] = {}
    for _ in range(80):
        what = chance.randrange(9)
        running = [t for t in tasks if bench.row(t).state is State.RUNNING]
        if what < 3:
            keys = chance.choice(carried)
            fields = {"queue": chance.choice("ab"), "name": chance.choice(NAMES)}
            priority = chance.randrange(3)
            tasks[bench.submit(limits=keys, priority=priority, **fields)] = keys
        elif what < 5:
            take(bench, chance.randrange(1, 4), chance.choice("ab"))
        elif what < 7 and running:
            states = [State.SUCCEEDED, State.QUEUED, State.FAILED]
            moves = chance.random() < 0.3
            end(bench, chance.choice(running), chance.choice(states), moves=moves)
        elif what == 7 and tasks:
            bench.one(Cancel(chance.choice(list(tasks)), None, bench.now))
        elif chance.random() < 0.3:
            bench.reopen()
            release(bench)
        if chance.random() < 0.5:
            bench.one(Block(tuple(look(bench)[1])))
        held = Counter(key for t in running_now(bench, tasks) for key in tasks[t])
        for key, n in held.items():
            assert n <= numbers[key.partition(":")[0]], key
    left = None
    while True:
        ready, blocked = look(bench)
        bench.one(Block(tuple(blocked)))
        taken = [t for queue in "ab" for t in take(bench, 3, queue)]
        if not taken and not blocked:
            waiting = [t for t in tasks if bench.row(t).state is State.QUEUED]
            running = running_now(bench, tasks)
            assert running or not waiting, f"{waiting} wait for nothing"
            assert ready == []
            for task in waiting:
                why = answer(bench.reader, WhyBlocked(task))
                assert why is not None, f"{task} {tasks[task]} {bench.row(task)} waits for nothing"
            if not running:
                break
            left = running[0]
            end(bench, left)


def running_now(bench: Any, tasks: Any) -> list[int]:
    return [t for t in tasks if bench.row(t).state is State.RUNNING]


def test_a_task_that_is_replaced_carries_the_keys_of_its_new_arguments(bench: Any) -> None:
    declare(bench, limit("customer", 1))
    first = bench.submit(limits=("customer:7",))
    assert take(bench) == [first]
    fields = {"key": "k", "if_exists": REPLACE}
    task = bench.submit(limits=("customer:7",), **fields)
    assert take(bench) == []
    assert bench.submit(limits=("customer:8",), args=b"\xa1apathb/y", **fields) == task
    assert take(bench) == [task]


def test_a_task_that_waited_for_another_is_blocked_as_any(bench: Any) -> None:
    declare(bench, limit("api", 1))
    first = bench.submit(name="other")
    holder = bench.submit(limits=("api",))
    after = bench.submit(limits=("api",), after=(first,))
    assert take(bench) == [first, holder]
    end(bench, first)
    assert look(bench) == ([], [])
    end(bench, holder)
    assert take(bench) == [after]


@pytest.mark.parametrize("how", ["postponed", "held"])
def test_a_task_that_moved_and_then_waits_for_something_else_has_lost_its_place(
    bench: Any, how: str
) -> None:
    declare(bench, limit("api", 1))
    task = bench.submit(limits=("api",))
    assert take(bench) == [task]
    other = bench.submit(limits=("api",))
    end(bench, task, State.QUEUED, moves=True)
    if how == "held":
        assert bench.one(HoldKind("default", Kind("index", None), "no", 1, 1.0)) == [task]
    else:
        bench.one(Alter(task, None, bench.now, delay=5.0))
    assert take(bench) == [other]
    if how == "held":
        bench.retry(task)
    else:
        assert bench.wake(9, after=10.0) == [task]
    assert take(bench) == []
    end(bench, other)
    assert take(bench) == [task]


def test_a_blocked_task_may_move_to_another_queue_and_get_another_priority(bench: Any) -> None:
    declare(bench, limit("api", 1))
    first = bench.submit(limits=("api",))
    assert take(bench) == [first]
    low, high = bench.submit(limits=("api",)), bench.submit(limits=("api",))
    bench.one(Alter(high, None, bench.now, priority=5))
    far = bench.submit(limits=("api",))
    bench.one(Alter(far, None, bench.now, queue="far"))
    assert take(bench, queue="far") == take(bench) == []
    end(bench, first)
    assert take(bench, queue="far") == [far]
    end(bench, far)
    assert take(bench) == [high]
    bench.one(Alter(low, None, bench.now, queue="far"))
    end(bench, high)
    assert take(bench, queue="far") == [low]


def test_what_may_begin_is_found_behind_many_kinds_that_may_not(bench: Any) -> None:
    declare(bench, limit("api", 1))
    names = [f"n{number}" for number in range(6)]
    first, *_ = [bench.submit(name=name, limits=("api",)) for name in names]
    free = bench.submit(name="other")
    routes = {Kind(name, None): 1 for name in (*names, "other")}
    parts = bench.reader.all(Ready("", {}, 2, routes, {}, 9))
    assert [each.task for part in parts for _, each in part.tasks] == [first, free]
