"""What every store must do about pauses: nothing fresh is taken, what moves goes on."""

from __future__ import annotations

from typing import Any

import pytest
from support import taking
from support.answers import answer

from taskd.errors import Refused
from taskd.model.task import Budgets, State
from taskd.store.api import PAUSES, Offer, Pause, Resume, Retry, Settle, Shift, Take, Wake
from taskd.store.concurrency_api import SetConcurrency
from taskd.store.queries import Concurrencies, NextDue, Pauses, Ready
from taskd.store.values import Kind, Paused, Scope

ALL, QUEUE, NAME = Scope(), Scope(queue="default"), Scope(name="index")

ROUTES = {Kind(name, saved): 1 for name in ("index", "other") for saved in (None, 2)}


def pause(bench: Any, scope: Scope, seconds: float | None = None, why: str = "") -> bool:
    return bool(bench.one(Pause(scope, 0, bench.now, seconds, why)))


def take(bench: Any, count: int = 9, queue: str = "default", **fields: Any) -> list[int]:
    offers = tuple(Offer(taking.new_worker(), 1, "r1") for _ in range(count))
    alone = fields.get("alone", {})
    return [t.task for t in bench.one(Take(queue, ROUTES, alone, offers, 1 << 20, bench.now))]


def ready(bench: Any) -> list[int]:
    wanted = Ready("", {}, 99, ROUTES, {}, 99)
    return [each.task for part in bench.reader.all(wanted) for _, each in part.tasks]


def settle(bench: Any, task: int, moves: bool | None, **fields: Any) -> None:
    attempt = bench.row(task).attempt
    state = fields.pop("state", State.QUEUED)
    bench.one(Settle(task, attempt, state, bench.now, Budgets(), moves=moves, **fields))


@pytest.mark.parametrize(
    "scope, left", [(ALL, []), (QUEUE, ["far"]), (NAME, ["other"]), (Scope("no", ""), None)]
)
def test_nothing_of_what_is_paused_is_ready_or_taken(
    bench: Any, scope: Scope, left: list[str] | None
) -> None:
    task, other = bench.submit(), bench.submit(name="other")
    far = bench.submit(queue="far", name="other")
    named = {"index": [task], "other": [other, far], "far": [far]}
    expected = [task, other, far] if left is None else [t for each in left for t in named[each]]
    assert pause(bench, scope)
    assert sorted(ready(bench)) == expected
    assert sorted(take(bench) + take(bench, queue="far")) == expected
    assert bench.one(Resume(scope))
    rest = sorted(set(named["index"] + named["other"]) - set(expected))
    assert sorted(ready(bench)) == rest
    assert sorted(take(bench) + take(bench, queue="far")) == rest


@pytest.mark.parametrize("scope", [ALL, QUEUE, NAME])
def test_what_was_running_and_moves_goes_on(bench: Any, scope: Scope) -> None:
    tasks = [bench.submit() for _ in range(5)]
    moved, crashed, sent_back, fresh, slept = tasks
    assert take(bench) == tasks
    settle(bench, moved, True, saved=b"s", saved_version=2)
    assert take(bench) == [moved]
    pause(bench, scope)
    settle(bench, moved, True)
    settle(bench, crashed, False)
    settle(bench, sent_back, True)
    settle(bench, fresh, None)
    settle(bench, slept, False, state=State.SCHEDULED, delay=1.0)
    bench.wake(9, after=2.0)
    assert ready(bench) == [moved, sent_back]
    assert take(bench, 1) == [moved]
    settle(bench, moved, None)
    assert sorted(take(bench)) == [moved, sent_back], "given back unbegun, it still moves"
    settle(bench, sent_back, True)
    bench.one(Settle(moved, bench.row(moved).attempt, State.HELD, bench.now, Budgets()))
    bench.one(Retry(moved, None, bench.now))
    assert take(bench) == [sent_back]
    bench.one(Resume(scope))
    assert sorted(take(bench)) == sorted([crashed, fresh, slept, moved])


def test_a_task_that_goes_its_own_way_is_paused_too(bench: Any) -> None:
    task, moves = bench.submit(), bench.submit()
    take(bench)
    settle(bench, task, False)
    settle(bench, moves, True)
    pause(bench, NAME)
    assert take(bench, alone={task: 1, moves: 1}) == [moves]
    bench.one(Resume(NAME))
    assert take(bench, alone={task: 1}) == [task]


def test_a_pause_may_end_by_itself(bench: Any) -> None:
    """By the store's clock, and also if nobody said so."""
    task = bench.submit()
    pause(bench, QUEUE, seconds=10.0)
    assert answer(bench.reader, NextDue()) == 10.0
    later = bench.submit(delay=4.0)
    assert answer(bench.reader, NextDue()) == 4.0
    assert bench.wake(9, after=5.0) == [later]
    assert [p.scope for p in answer(bench.reader, Pauses())] == [QUEUE]
    assert ready(bench) == []
    bench.now += 10
    assert ready(bench) == [task, later]
    assert answer(bench.reader, NextDue()) == 0.0
    assert bench.one(Wake(9)) == []
    assert answer(bench.reader, Pauses()) == []
    assert answer(bench.reader, NextDue()) is None


def test_a_clock_that_is_set_does_not_change_how_long_a_pause_lasts(bench: Any) -> None:
    pause(bench, QUEUE, seconds=10.0)
    pause(bench, NAME)
    assert bench.one(Shift(100.0)) == 0
    bench.now += 100
    assert answer(bench.reader, NextDue()) == 8.0


def test_pauses_are_told_and_outlive_a_restart(bench: Any) -> None:
    assert pause(bench, QUEUE, why="the mail server is down")
    at = bench.now - 1
    assert not pause(bench, QUEUE, seconds=60.0, why="until then")
    assert pause(bench, Scope(name="no task has it"))
    bench.reopen()
    told = answer(bench.reader, Pauses())
    assert told[1] == Paused(QUEUE, 0, at + 1, bench.now - 1 + 60.0, "until then")
    assert [each.scope for each in told] == [Scope(name="no task has it"), QUEUE]
    assert bench.one(Resume(QUEUE))
    assert not bench.one(Resume(QUEUE))
    assert not bench.one(Resume(ALL))


def test_no_more_than_so_many_scopes_are_paused(bench: Any) -> None:
    bench.apply(*[Pause(Scope(f"q{n}"), 0, 1.0, None, "") for n in range(PAUSES)])
    with pytest.raises(Refused, match="resume some"):
        pause(bench, QUEUE)
    assert not pause(bench, Scope("q0"), why="another reason")


def test_the_concurrency_of_a_queue_is_kept_until_its_time_is_over(bench: Any) -> None:
    def said() -> list[tuple[str, int, float | None]]:
        found = answer(bench.reader, Concurrencies())
        return [(each.queue, each.tasks, each.until) for each in found]

    def put(queue: str, tasks: int | None, seconds: float | None = None) -> bool:
        was: bool = bench.one(SetConcurrency(queue, tasks, 7, 1.0, seconds, "why"))
        return was

    assert not put("mail", 3)
    assert put("mail", 4, 100.0)
    until = bench.now + 100
    assert not put("other", 1)
    assert bench.reader.due() == 100 - 1
    bench.one(Shift(50.0))
    assert said() == [("mail", 4, until + 50), ("other", 1, None)]
    bench.reopen()
    bench.now = until + 60
    assert bench.reader.due() == 0
    bench.one(Wake(9))
    assert said() == [("other", 1, None)]
    assert bench.reader.due() is None
    assert put("other", None)
    assert not put("other", None)
    assert said() == []
