"""In which order every store gives out what is ready: owners take turns within a priority."""

from __future__ import annotations

from typing import Any

import pytest

from taskd.model.task import State


def order(bench: Any, queue: str = "default") -> list[int]:
    """Whose tasks are claimed, one after the other."""
    owners = []
    while tasks := bench.ready(queue, 1):
        bench.claim(tasks[0])
        owners.append(bench.row(tasks[0]).owner)
    return owners


def test_owners_take_turns_however_much_each_has_waiting(bench: Any) -> None:
    for owner in (1, 1, 1, 1, 2, 2, 3):
        bench.submit(owner=owner)
    assert order(bench) == [1, 2, 3, 1, 2, 1, 1]


def test_who_comes_late_is_next_and_not_before_all_others(bench: Any) -> None:
    for owner in [1] * 6 + [2] * 6:
        bench.submit(owner=owner)
    for _ in range(6):
        bench.claim(bench.ready("default", 1)[0])
    for owner in (3, 3, 3):
        bench.submit(owner=owner)
    assert order(bench) == [1, 2, 3] * 3


def test_turns_are_taken_within_a_queue_and_a_priority_and_from_when_a_task_is_ready(
    bench: Any,
) -> None:
    for _ in range(3):
        bench.submit(owner=1)
        bench.submit(owner=1, queue="other")
        bench.submit(owner=1, delay=10.0)
    bench.submit(owner=2, priority=1)
    bench.submit(owner=2, priority=-1)
    bench.submit(owner=2)
    bench.submit(owner=2, queue="other")
    bench.wake(9, after=100.0)
    bench.submit(owner=3)
    assert order(bench) == [2, 1, 2, 3, 1, 1, 1, 1, 1, 2]
    assert order(bench, "other") == [1, 2, 1, 1]


@pytest.mark.parametrize("way", ["at once", "later", "retry"])
def test_one_that_has_begun_waits_for_nothing_that_its_owner_has_submitted_since(
    bench: Any, way: str
) -> None:
    tasks = [bench.submit(owner=1) for _ in range(2)]
    for task in tasks:
        bench.claim(task)
    for owner in [1] * 5 + [2] * 2:
        bench.submit(owner=owner)
    for task in tasks:
        if way == "at once":
            bench.settle(task, State.QUEUED)
        elif way == "later":
            bench.settle(task, State.SCHEDULED, delay=5.0)
            bench.wake(9, after=10.0)
        else:
            bench.settle(task, State.HELD)
            bench.retry(task)
    assert order(bench) == [1, 1, 2, 1, 1, 2, 1, 1, 1], "each of the two beside one of the others"
