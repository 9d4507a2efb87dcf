"""Limits in SQLite: what they cost, and that what is counted in memory is what the rows say."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from typing import Any

import pytest
from submits import new
from support.answers import answer
from support.taking import new_worker

from taskd.model.task import Budgets, State
from taskd.store.api import Cancel, Offer, Operation, Settle, Take
from taskd.store.limit_api import TASK, Block, Release, TakeUpLimits
from taskd.store.limiting import Holders
from taskd.store.queries import Ready
from taskd.store.reader import SqliteReader
from taskd.store.sqlite import SqliteStore
from taskd.store.values import Kind, Limit

RUNNING = "select id, attempt from tasks where state = 'running'"

ROUTES = {Kind("t", None): 1}


def apply(store: SqliteStore, *operations: Operation) -> list[Any]:
    return [each.result for each in store.apply(store.last() + 1, operations)]


def take(count: int) -> Take:
    offers = tuple(Offer(new_worker(), 1, "r1") for _ in range(count))
    return Take("q", ROUTES, {}, offers, 1 << 20, 2.0)


def declare(store: SqliteStore, *limits: Limit) -> None:
    apply(store, TakeUpLimits(limits, ()))


def settle(task: int, attempt: int = 1, **fields: Any) -> Settle:
    state = fields.pop("state", State.SUCCEEDED)
    return Settle(task, attempt, state, 3.0, Budgets(), **fields)


def work(raw: sqlite3.Connection, call: Callable[[], Any]) -> int:
    """How many steps SQLite's machine takes for ``call``."""
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    raw.set_progress_handler(count, 1)
    try:
        call()
    finally:
        raw.set_progress_handler(None, 1)
    return steps


def look(reader: SqliteReader) -> Any:
    return answer(reader, Ready("", {}, 99, ROUTES, {}, 99))


def test_a_claim_does_not_grow_with_what_is_blocked_ahead(
    store: SqliteStore, reader: SqliteReader
) -> None:
    """Nor does the end of the holder, nor a look."""
    declare(store, Limit("customer", 1, None, 1, "r1"))
    apply(store, new(limits=("customer:1",)), take(1))
    done = 1
    look(reader)

    def costs() -> list[int]:
        """Another customer's task is behind all that is blocked."""
        nonlocal done
        apply(store, *[new(limits=(f"customer:{n}",)) for n in (8, 9)])
        looked = work(reader._connection, lambda: look(reader))
        taken: list[Any] = []
        claim = work(store._connection, lambda: taken.extend(apply(store, take(2))[0]))
        assert len(taken) == 2
        apply(store, *[settle(each.task) for each in taken])
        end = work(store._connection, lambda: apply(store, settle(done), take(1)))
        ((done, _),) = store._connection.execute(RUNNING)
        return [looked, claim, end]

    apply(store, *[new(limits=("customer:1",)) for _ in range(20)])
    before = costs()
    apply(store, *[new(limits=("customer:1",), priority=5) for _ in range(3000)])
    after = costs()
    assert all(now <= then * 1.1 + 20 for now, then in zip(after, before, strict=True)), (
        before,
        after,
    )


def test_nor_with_what_a_full_name_has_ready(store: SqliteStore, reader: SqliteReader) -> None:
    declare(store, Limit(TASK + "t", 1, None, 1, "r1"))
    apply(store, *[new() for _ in range(20)], take(1))
    look(reader)

    def costs() -> list[int]:
        connections = (reader._connection, store._connection)
        calls = (lambda: look(reader), lambda: apply(store, take(1)))
        return [work(*each) for each in zip(connections, calls, strict=True)]

    before = costs()
    apply(store, *[new(priority=5) for _ in range(3000)])
    assert all(now <= then * 1.1 + 20 for now, then in zip(costs(), before, strict=True))


@pytest.mark.parametrize("seed", range(3))
def test_after_every_commit_what_is_counted_is_what_runs(store: SqliteStore, seed: int) -> None:
    chance = random.Random(seed)
    declare(store, Limit("a", 2, None, 1, "r1"), Limit("b", 3, None, 1, "r1"))
    attempts: dict[int, int] = {}
    for _ in range(150):
        what, running = chance.randrange(6), [t for t, n in attempts.items() if n > 0]
        if what < 2:
            keys = chance.choice([(), ("a",), ("a", "b"), ("b",)])
            apply(store, new(limits=keys))
        elif what == 2:
            for each in apply(store, take(chance.randrange(1, 4)))[0]:
                attempts[each.task] = each.row.attempt
        elif what == 3 and running:
            task = chance.choice(running)
            state = chance.choice([State.SUCCEEDED, State.QUEUED, State.FAILED])
            moves = chance.random() < 0.5
            apply(store, settle(task, attempts.pop(task), state=state, moves=moves))
        elif what == 4:
            apply(store, Cancel(chance.randrange(1, 60), None, 4.0))
        else:
            wrong = settle(1, 1, state=State.RUNNING)
            ends = [
                *store._connection.execute("select id, attempt from tasks where state = 'running'")
            ]
            if ends:
                wrong = wrong._replace(task=ends[0][0], attempt=ends[0][1])
                with pytest.raises(ValueError, match="does not end in"):  # a batch is rolled back
                    apply(store, new(limits=("a",)), take(2), wrong)
        limiting = store._transaction.limits
        counted = limiting.holders.held
        fetched = Holders(limiting._fetch).held
        assert counted == fetched
        assert counted["a"] <= 2
        assert counted["b"] <= 3


def test_what_the_version_before_has_left_is_looked_at_by_release(store: SqliteStore) -> None:
    """0.2 runs a blocked task and ends it, and leaves the column as it is."""
    declare(store, Limit("a", 1, None, 1, "r1"))
    apply(store, new(limits=("a",)), take(1), new(limits=("a",)), new(limits=("a",)))
    store._connection.execute(
        "update tasks set state = 'succeeded', worker = null, ended = 5.0 where id = 1"
    )
    store._connection.execute("update tasks set attempt = 1 where id = 2")
    store._transaction.forget()
    assert apply(store, Release(None, 9), take(3))[1][0].task == 2
    assert apply(store, Block((1, 2, 3)), take(1)) == [[], []]
