"""Batches are numbered; what came of the last one can be asked for; each is made once."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from contract_bench import Bench, told
from stores import STORES, Kind
from support.taking import claim

from contrib.storm.losing import LosesAnswers, Lost
from taskd import errors
from taskd.model.task import Budgets, State
from taskd.store.api import (
    Answer,
    Cancel,
    Retry,
    Settle,
    Shift,
    Store,
    Submit,
    SubmitAll,
    Wake,
)


@pytest.fixture(params=list(STORES))
def kind(request: pytest.FixtureRequest) -> Kind:
    return STORES[request.param]


Opens = Callable[[], Store]


@pytest.fixture
def opens(kind: Kind, tmp_path: Path) -> Opens:
    return lambda: kind.store(os.fspath(tmp_path), time.time)


def new(**fields: Any) -> Submit:
    made = Submit(os.urandom(16), 1, "t", 1, b"args", "x", "q", 0, None, None, 0, None, 1.0)
    return made._replace(**fields)


def test_the_numbers_go_on_over_openings(opens: Opens) -> None:
    store = opens()
    assert (store.last(), store.outcome(0), store.outcome(1)) == (0, None, None)
    for number in (1, 2):
        store.apply(number, [new()])
        assert store.last() == number
    store.close()
    store = opens()
    assert store.last() == 2
    store.apply(3, [])
    assert (store.last(), store.outcome(3)) == (3, [])
    store.close()


@pytest.mark.parametrize("number", [-1, 0, 1, 3, 1 << 70])
def test_any_other_number_is_a_bug_and_nothing_happens(opens: Opens, number: int) -> None:
    store = opens()
    store.apply(1, [new()])
    with pytest.raises(ValueError, match=f"batch {number} cannot follow batch 1"):
        store.apply(number, [new()])
    assert store.last() == 1
    assert store.apply(2, [new()])[0].result.task == 2
    store.close()


def test_a_batch_that_is_a_bug_leaves_its_number_to_the_next(opens: Opens) -> None:
    store = opens()
    with pytest.raises(ValueError):
        store.apply(1, [new(), claim(1, queue="q"), Settle(1, 1, State.RUNNING, 1.0, Budgets())])
    assert store.last() == 0
    assert store.apply(1, [new()])[0].result.created
    store.close()


def test_only_the_last_outcomes_are_told_also_after_another_opening(opens: Opens) -> None:
    store = opens()
    store.apply(1, [new()])
    last = store.apply(2, [new(), Retry(9, None, 1.0), Wake(5), Shift(2.0)])
    store.close()
    store = opens()
    assert (store.outcome(1), store.outcome(3)) == (None, None)
    assert told(store.outcome(2)) == told(last)
    store.close()


def test_a_task_that_was_taken_is_told_as_its_whole_batch_has_left_it(opens: Opens) -> None:
    store = opens()
    applied = store.apply(1, [new(), claim(1, queue="q", worker=b"w"), Cancel(1, None, 2.0)])
    found = store.outcome(1)
    assert found is not None
    (taken,) = applied[1].result
    (told_again,) = found[1].result
    assert (taken.row.cancel_wished, told_again.row.cancel_wished) == (False, True)
    assert told_again == taken._replace(row=taken.row._replace(cancel_wished=True))
    store.close()


def test_refusals_are_told_by_class_and_text(bench: Bench) -> None:
    bench.submit(key="k")
    full = bench.new()
    answers = bench.apply(bench.new(key="k", name="other"), Retry(1, None, 1.0), Retry(7, 1, 1.0))
    assert [type(each.result) for each in answers] == [
        errors.KeyConflict,
        errors.Refused,
        errors.UnknownTask,
    ]
    assert bench.one(full).created


def test_results_come_in_the_order_of_the_operations_whatever_is_locked_first(bench: Bench) -> None:
    """A store that locks by (owner, key) and id answers in the caller's order all the same."""
    keys = ["m", "z", None, "a", "k"]
    batch = [bench.new(key=key, owner=9 - n, name=f"{key}") for n, key in enumerate(keys)]
    more = SubmitAll((bench.new(key="y"), bench.new(key="b")))
    unknown = Settle(1 << 40, 1, State.FAILED, 1.0, Budgets())
    answers = bench.apply(*batch, more, batch[3], unknown, batch[0])
    tasks = [each.result.task for each in answers[:5]]
    assert [bench.row(task).name for task in tasks] == [str(key) for key in keys]
    assert [bench.row(each.task).key for each in answers[5].result] == ["y", "b"]
    assert [answers[n].result.task for n in (6, 8)] == [tasks[3], tasks[0]]
    assert answers[7].result == Answer.SUPERSEDED


def test_what_is_not_idempotent_is_done_once_though_each_answer_is_lost(bench: Bench) -> None:
    task = bench.submit(delay=100.0)
    due = bench.row(task).run_at
    for count in range(1, 9):
        assert bench.one(Shift(10.0)) == 1
        assert bench.row(task).run_at == due + 10 * count
    again = bench.in_state(State.FAILED)
    events = len(bench.reader.events([again], 0, 99))
    for count in range(1, 9):
        assert bench.retry(again) is State.QUEUED
        bench.ended(again, State.FAILED)
        assert len(bench.reader.events([again], 0, 99)) == events + 3 * count


def test_a_wrapper_loses_what_it_was_told_to(opens: Opens) -> None:
    fates = {(1, 0): Lost(True, questions=1), (2, 0): Lost(False)}
    store = LosesAnswers(opens(), lambda number, tries: fates.get((number, tries)))
    with pytest.raises(errors.StoreUnknown):
        store.apply(1, [new()])
    with pytest.raises(errors.StoreError, match="away"):
        store.outcome(1)
    assert (store.last(), len(store.outcome(1) or [])) == (1, 1)
    with pytest.raises(errors.StoreUnknown):
        store.apply(2, [new()])
    assert (store.last(), store.outcome(2)) == (1, None)
    assert store.apply(2, [new()])[0].result.task == 2
    store.close()


def test_a_lost_answer_is_no_refusal() -> None:
    """Code that takes a StoreError for "nothing happened" never meets it."""
    assert not issubclass(errors.StoreUnknown, errors.Refused)
