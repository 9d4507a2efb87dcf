"""Which tasks a Take takes: kinds and their runners, single tasks, order, bounds, sent again."""

from __future__ import annotations

from typing import Any

from support.taking import EveryKind, new_worker

from taskd.model.task import Budgets, State
from taskd.store.api import (
    Cancel,
    Cancelled,
    HoldKind,
    Offer,
    Settle,
    Take,
)
from taskd.store.queries import Ready
from taskd.store.values import Kind, Taken


def fresh(name: str) -> Kind:
    return Kind(name, None)


def take(bench: Any, runners: list[int], **fields: Any) -> list[Taken]:
    """With a worker for each of ``runners``."""
    offers = tuple(Offer(new_worker(), runner, f"r{runner}") for runner in runners)
    given: dict[str, Any] = {
        "queue": "default",
        "routes": EveryKind(),
        "alone": {},
        "offers": offers,
        "room": 1 << 20,
        "at": bench.now,
    }
    return list(bench.one(Take(**{**given, **fields})))


def tasks(taken: list[Taken]) -> list[int]:
    return [each.task for each in taken]


def saved_by(bench: Any, version: int, **fields: Any) -> int:
    """A ready task whose saved state is of that version."""
    task: int = bench.submit(**fields)
    bench.claim(task)
    bench.settle(task, State.QUEUED, saved=b"state", saved_version=version)
    return task


def test_each_worker_gets_one_task_in_the_order_of_claiming_and_all_that_it_needs(
    bench: Any,
) -> None:
    low, first = bench.submit(priority=-1), bench.submit(owner=1, name="a")
    second, other = bench.submit(owner=1, name="b"), bench.submit(owner=2, name="c")
    urgent = bench.submit(priority=3, name="b", args=b"args")
    bench.submit(queue="other", priority=9)
    taken = take(bench, [1, 1, 1, 1])
    assert tasks(taken) == [urgent, first, other, second]
    assert taken[0] == Taken(bench.row(urgent), b"args", None)
    assert len({bench.row(task).worker for task in tasks(taken)}) == 4
    assert tasks(take(bench, [1, 1])) == [low]
    assert take(bench, [1]) == []


def test_a_task_comes_with_its_saved_state(bench: Any) -> None:
    saved_by(bench, 2)
    (taken,) = take(bench, [1])
    assert (taken.saved, taken.row.saved_version, taken.row.attempt) == (b"state", 2, 2)


def test_only_kinds_with_a_route_are_taken_each_by_its_runner(bench: Any) -> None:
    unfit, new = bench.submit(name="unknown", priority=9), bench.submit(name="new")
    old = saved_by(bench, 1, name="new")
    routes = {fresh("new"): 2, Kind("new", 1): 1, fresh("absent"): 1}
    assert tasks(take(bench, [1, 1], routes=routes)) == [old]
    taken = take(bench, [1, 2, 2], routes=routes)
    assert [(each.task, each.row.revision) for each in taken] == [(new, "r2")]
    assert bench.row(unfit).state is State.QUEUED


def test_saved_state_of_every_version_is_a_kind_of_its_own(bench: Any) -> None:
    ready = {version: saved_by(bench, version) for version in (0, 1, 2)}
    plain = bench.submit()
    for version, task in ready.items():
        assert tasks(take(bench, [1] * 4, routes={Kind("index", version): 1})) == [task]
    assert tasks(take(bench, [1] * 4, routes={fresh("index"): 1})) == [plain]


def test_a_runner_without_workers_holds_up_no_other(bench: Any) -> None:
    for _ in range(5):
        bench.submit(name="busy", priority=1)
    behind = bench.submit(name="free")
    routes = {fresh("busy"): 1, fresh("free"): 2}
    assert tasks(take(bench, [2], routes=routes)) == [behind]


def test_a_single_task_goes_to_its_own_runner_and_not_to_that_of_its_kind(bench: Any) -> None:
    alone, alike = bench.submit(), bench.submit()
    ended, elsewhere = bench.submit(), bench.submit(queue="other")
    bench.cancel(ended)
    told = {alone: 1, ended: 1, elsewhere: 1, 4711: 1}
    routes = {fresh("index"): 2}
    assert tasks(take(bench, [2, 2], routes=routes, alone=told)) == [alike]
    assert tasks(take(bench, [1, 1], routes=routes, alone=told)) == [alone]


def test_single_tasks_and_those_of_all_kinds_are_taken_in_one_order(bench: Any) -> None:
    low, alone = bench.submit(name="a"), bench.submit(name="b", priority=1)
    high, middle = bench.submit(name="a", priority=2), bench.submit(name="c", priority=1)
    routes = {fresh("a"): 1, fresh("c"): 1}
    told = {alone: 1, -1: 1, 1 << 70: 1}
    assert tasks(take(bench, [1] * 3, routes=routes, alone=told)) == [high, alone, middle]
    assert tasks(take(bench, [1] * 3, routes=routes, alone=told)) == [low]


def test_no_more_are_taken_once_their_arguments_and_state_fill_the_room(bench: Any) -> None:
    submitted = [bench.submit(args=b"x" * 100) for _ in range(4)]
    assert tasks(take(bench, [1] * 4, room=150)) == submitted[:2]
    assert tasks(take(bench, [1] * 4, room=1)) == submitted[2:3], "one at least"
    bench.cancel(submitted[3])
    begun = [bench.submit(args=b"") for _ in range(2)]
    for task in begun:
        bench.claim(task)
        bench.settle(task, State.QUEUED, saved=b"x" * 100)
    assert tasks(take(bench, [1] * 4, room=100)) == begun[:1]


def test_an_end_frees_its_worker_for_a_take_in_the_same_batch(bench: Any) -> None:
    first, second = bench.submit(), bench.submit()
    again = Take("default", EveryKind(), {}, (Offer(b"one", 1, "r1"),), 1, bench.now)
    assert tasks(bench.one(again)) == [first]
    end = Settle(first, 1, State.SUCCEEDED, bench.now, Budgets())
    assert tasks(bench.apply(end, again)[1].result) == [second]


def test_operations_of_a_batch_see_what_those_before_them_have_left(bench: Any) -> None:
    one = Take("default", EveryKind(), {}, (Offer(b"one", 1, "r1"),), 1, bench.now)
    new = bench.new(key="k")
    submitted, taken, wish, again = bench.apply(new, one, Cancel(1, None, 1.0), new)
    assert tasks(taken.result) == [submitted.result.task] == [1]
    assert wish.result == Cancelled(State.RUNNING, State.RUNNING)
    assert not again.result.created


def test_what_is_ready_is_listed_by_queue_in_turn_within_the_places_of_each(bench: Any) -> None:
    one, _ = bench.submit(queue="a"), bench.submit(queue="a")
    bench.submit(queue="full")
    two, three = bench.submit(queue="b", name="x"), bench.submit(queue="b")
    bench.in_state(State.SCHEDULED, queue="later")

    def listed(**fields: Any) -> list[tuple[str, int]]:
        wanted = Ready("", {"a": 1, "full": 0}, 5, EveryKind(), {}, 9)
        found = bench.reader.all(wanted._replace(**fields))
        return [(queue, each.task) for part in found for queue, each in part.tasks]

    assert listed() == [("a", one), ("b", two), ("b", three)]
    assert listed(after="a") == [("b", two), ("b", three), ("a", one)]
    assert listed(after="b") == [("a", one), ("b", two), ("b", three)]
    assert listed(limit=2) == [("a", one), ("b", two)]
    assert listed(routes={fresh("x"): 3}) == [("b", two)]
    assert listed(routes={}, alone={"b": {three: 3}}) == [("b", three)]


def test_kinds_without_a_route_are_told_and_can_be_held_some_at_a_time(bench: Any) -> None:
    gone = [bench.submit(name="gone", owner=owner) for owner in (1, 1, 2)]
    known, newer = bench.submit(), saved_by(bench, 7)
    wanted = Ready("", {}, 5, {fresh("index"): 1}, {}, 9)
    (found,) = bench.reader.all(wanted)
    assert found.unroutable == [("default", fresh("gone")), ("default", Kind("index", 7))]
    hold = HoldKind("default", fresh("gone"), "no revision has it", 2, bench.now)
    assert bench.one(hold) == [gone[0], gone[2]]
    assert bench.one(hold) == [gone[1]]
    assert bench.one(hold) == []
    for task in gone:
        assert (bench.row(task).state, bench.row(task).reason) == (State.HELD, "no revision has it")
    assert {bench.row(task).state for task in (known, newer)} == {State.QUEUED}
    assert bench.reader.events([gone[0]], 0, 9)[-1].reason == "no revision has it"
