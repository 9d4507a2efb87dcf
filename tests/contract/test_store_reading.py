"""What every store must show: order, counters and groups, always as committed."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from support import taking
from support.answers import answer

from taskd.errors import LimitReached
from taskd.model.task import ENDED, SETTLED, Budgets, State
from taskd.store.api import (
    Cancel,
    CancelExpired,
    HoldKind,
    Operation,
    Retry,
    Settle,
    Share,
    SubmitAll,
    Wake,
)
from taskd.store.queries import (
    Filter,
    Glance,
    Glances,
    Listed,
    Rows,
    Shown,
    Startable,
    Stored,
    StoredData,
)
from taskd.store.values import Group, Kind

WAITING = {State.QUEUED, State.SCHEDULED, State.HELD}


def ids(rows: list[Any]) -> list[int]:
    return [row.id for row in rows]


# Order and paging


def test_ready_tasks_come_by_priority_and_then_in_order_of_submission(bench: Any) -> None:
    low = bench.submit(priority=-1)
    first, second = bench.submit(), bench.submit()
    high = bench.submit(priority=9)
    bench.submit(queue="other", priority=99)
    bench.submit(priority=99, delay=9e9)
    assert bench.ready("default", 10) == [high, first, second, low]
    assert bench.ready("default", 2) == [high, first]
    assert bench.ready("unheard", 10) == []


def test_a_requeued_task_is_ready_again_in_its_old_place(bench: Any) -> None:
    first, second = bench.submit(), bench.submit()
    bench.claim(first)
    assert bench.ready("default", 10) == [second]
    bench.settle(first, State.QUEUED)
    assert bench.ready("default", 10) == [first, second]


def test_running_tasks_come_by_id(bench: Any) -> None:
    tasks = [bench.in_state(State.RUNNING) for _ in range(5)]
    bench.submit()
    assert ids(bench.reader.running_rows()) == tasks
    assert ids(bench.reader.running_rows(tasks[2])) == tasks[3:]


def test_named_tasks_come_in_the_order_of_their_names(bench: Any) -> None:
    first, second = bench.submit(owner=7, queue="a"), bench.in_state(State.HELD, queue="b")
    asked = (second, 99, first, -1, 1 << 70)
    assert bench.reader.all(Rows(asked)) == [bench.row(second), bench.row(first)]
    assert bench.reader.all(Glances(asked)) == [
        Glance(second, 1000, "b", State.HELD),
        Glance(first, 7, "a", State.QUEUED),
    ]
    assert [told.row for told in bench.reader.told(*asked)] == [bench.row(second), bench.row(first)]
    assert ids(bench.reader.all(Rows(()))) == bench.reader.all(Glances(())) == []


def test_only_what_is_settled_is_told_where_that_is_asked_for(bench: Any) -> None:
    made = {state: bench.in_state(state, result=b"4") for state in State}
    found = bench.reader.all(Shown(tuple(made.values()), 0.0, only_settled=True))
    assert {told.row.state for told in found} == SETTLED
    assert {told.row.state for told in found if told.result} == {State.SUCCEEDED}


def test_the_query_for_the_rest_names_the_tasks_that_are_left(bench: Any) -> None:
    made = bench.one(SubmitAll(tuple(bench.new(owner=n) for n in range(300))))
    tasks = tuple(each.task for each in made)
    query: Any = Shown((*tasks, 1 << 70), 0.0)
    found: list[int] = []
    while query is not None:
        some, query = answer(bench.reader, query)
        found += ids(told.row for told in some)
        assert query is None or query.tasks == (*tasks, 1 << 70)[len(found) :]
    assert found == list(tasks)


def test_stored_data_comes_in_the_order_of_the_names(bench: Any) -> None:
    plain = bench.submit(args=b"a")
    begun = bench.submit(args=b"b")
    bench.ended(begun, State.QUEUED, saved=b"s")
    found = bench.reader.all(StoredData((begun, 99, plain)))
    assert found == [Stored(begun, b"b", b"s"), Stored(plain, b"a", None)]


def test_a_list_has_results_if_they_are_asked_for_and_ends_where_its_room_does(
    bench: Any,
) -> None:
    for _ in range(3):
        bench.ended(bench.submit(), State.SUCCEEDED, result=b"1234567890")
    bench.submit()

    def listed(with_results: bool, room: int) -> list[bytes | None]:
        """Each task has nine bytes of arguments, which count as well."""
        query = Listed(Filter(), with_results, room, 0.0)
        return [told.result for told in bench.reader.all(query)]

    assert listed(False, 40) == [None] * 4
    assert listed(True, 1000) == [None, *[b"1234567890"] * 3]
    assert listed(True, 30) == [None, b"1234567890", b"1234567890"]
    assert listed(True, 0) == [None], "one at least"


def test_a_name_can_be_started_if_one_of_its_tasks_waits_and_is_not_held(bench: Any) -> None:
    for name, *states in (
        ("held", State.HELD, State.HELD),
        ("queued", State.HELD, State.QUEUED),
        ("scheduled", State.SCHEDULED),
        ("running", State.RUNNING, State.HELD),
        ("over", *ENDED),
        ("unasked", State.QUEUED),
    ):
        for shape, state in enumerate(states):
            bench.in_state(state, name=name, shape=str(shape % 2))
    names = frozenset({"held", "queued", "scheduled", "running", "over", "none"})
    assert set(bench.reader.all(Startable(names))) == {"queued", "scheduled"}
    assert bench.reader.all(Startable(frozenset())) == []


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
    assert bench.reader.due() is None
    late, early = bench.submit(delay=7000.0), bench.submit(delay=6000.0)
    assert bench.reader.due() == 6000.0
    bench.cancel(early)
    assert bench.reader.due() == 7000.0 - 2, "by the store's clock"
    bench.cancel(late)
    assert bench.reader.due() is None


@pytest.mark.parametrize("number", [0, -1, 17, 1 << 63, 1 << 200])
def test_an_unknown_task_is_nothing_to_a_reader(bench: Any, number: int) -> None:
    bench.submit()
    assert bench.reader.task(number) is None
    assert bench.reader.saved(number) is None
    assert bench.reader.result(number) is None
    assert bench.reader.events([number], 0, 10) == []
    assert bench.reader.all(StoredData((number,))) == []


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


# Counters and groups


def test_a_queue_is_told_of_while_something_is_in_it(bench: Any) -> None:
    bench.in_state(State.RUNNING, queue="runs")
    first, second = bench.submit(queue="waits"), bench.submit(queue="a")
    bench.in_state(State.SCHEDULED, queue="later")
    assert sorted(bench.reader.busy(9)) == ["a", "runs", "waits"]
    assert len(bench.reader.busy(2)) == 2
    assert bench.reader.states("waits") == {State.QUEUED: 1}
    bench.claim(first)
    bench.cancel(second)
    assert sorted(bench.reader.busy(9)) == ["runs", "waits"]
    assert bench.reader.states("waits") == {State.RUNNING: 1}
    assert bench.reader.states("a") == {State.CANCELLED: 1}
    assert bench.reader.states("none") == {}
    assert bench.reader.states() == {State.RUNNING: 2, State.SCHEDULED: 1, State.CANCELLED: 1}


def test_groups_count_what_waits_by_name_version_and_shape(bench: Any) -> None:
    queued = bench.submit(name="a", version=1, shape="x,y")
    bench.submit(name="a", version=1, shape="x,y", delay=9e9)
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
    seen: set[State] = set()
    for _ in range(60):
        batch = [_random_operation(bench, chance, len(shapes)) for _ in range(20)]
        for operation, applied in zip(batch, bench.apply(*batch), strict=True):
            _note_shapes(shapes, operation, applied.result)
        if chance.random() < 0.1:
            bench.reopen()
        _check_counters(bench, shapes)
        _check_shares(bench)
        seen |= {state for _, state in bench.reader.counts()}
    assert seen == set(State)


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
            taking.claim(task, queue=chance.choice("pq")),
            taking.take(1, chance.choice("pq")),
            end._replace(delay=chance.choice([10.0, 9e9])),
            end._replace(delay=10.0),
            Cancel(task, chance.choice([None, 1]), 5.0),
            Retry(task, None, 5.0),
            HoldKind(chance.choice("pq"), _random_kind(chance), "why", chance.randint(1, 3), 5.0),
            Wake(chance.randint(1, 5)),
            CancelExpired(chance.randint(1, 3)),
        ]
    )


def _random_kind(chance: random.Random) -> Kind:
    return Kind(chance.choice("ab"), chance.choice([None, None, 1, 2]))


def _random_submit(bench: Any, chance: random.Random) -> Any:
    return bench.new(
        owner=chance.choice([1, 2]),
        name=chance.choice("ab"),
        version=chance.choice([1, 2]),
        shape=chance.choice(["", "x"]),
        args=b"a" * chance.randint(1, 3),
        queue=chance.choice("pq"),
        key=chance.choice([None, None, "k", "l", ""]),
        delay=chance.choice([None, None, 9e9]),
        expires=chance.choice([None, None, None, 5.0]),
    )


def _note_shapes(shapes: dict[int, str], operation: Operation, result: Any) -> None:
    news = operation.tasks if isinstance(operation, SubmitAll) else (operation,)
    results = result if isinstance(result, list) else [result]
    for new, each in zip(news, results, strict=False):
        if getattr(each, "created", False):
            shapes[each.task] = new.shape


def _check_counters(bench: Any, shapes: dict[int, str]) -> None:
    rows = bench.reader.tasks(Filter(limit=100_000))
    assert {row.id for row in rows} == set(shapes)
    assert bench.reader.counts() == Counter((row.queue, row.state) for row in rows)
    assert bench.reader.states() == Counter(row.state for row in rows)
    alike = {}
    for row in (row for row in rows if row.state in WAITING):
        version = row.version if row.saved_version is None else row.saved_version
        alike.setdefault((row.name, version, shapes[row.id]), set()).add(row.id)
    groups = {group[:3]: group for group in bench.reader.groups()}
    assert {key: group.waiting for key, group in groups.items()} == {
        key: len(tasks) for key, tasks in alike.items()
    }
    assert all(group.example in alike[key] for key, group in groups.items())
