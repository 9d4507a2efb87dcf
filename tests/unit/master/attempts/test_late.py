"""Answers of the store that come later, and in another order than they were asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench import Bench

from taskd.protocol import data
from taskd.store.api import Pause, Resume
from taskd.store.queries import NextDue, Pauses, Query, Ready
from taskd.store.values import Scope

NEW = {"name": "work", "args": data.encode({})}


def put_off(bench: Bench, kind: type[Query[Any]]) -> list[Callable[[], None]]:
    """Each question of that kind is answered as of now, and heard when the test says so."""
    heard: list[Callable[[], None]] = []
    ask = bench.master.storage.ask

    def late(query: Any, done: Any) -> None:
        if isinstance(query, kind):
            ask(query, lambda answer: heard.append(lambda: done(answer)))
        else:
            ask(query, done)

    bench.master.storage.ask = late  # type: ignore[method-assign]
    return heard


def write(bench: Bench, operation: Any) -> None:
    done: list[Any] = []
    bench.master.storage.write(operation, done.append)
    bench.until(lambda: done)


def test_an_earlier_answer_about_pauses_says_nothing_about_a_later_one(bench: Bench) -> None:
    pauses, heard = bench.master.pauses, put_off(bench, Pauses)
    write(bench, Pause(Scope(), 0, 1.0, None, ""))
    pauses.look()
    write(bench, Resume(Scope()))
    pauses.look()
    first, second = heard
    second()
    first()
    assert pauses.in_force() == []


def test_a_task_is_due_in_time_though_an_earlier_answer_comes_last(bench: Bench) -> None:
    """That one knew only of a later task."""
    for _ in range(3):
        bench.turn()
    heard = put_off(bench, NextDue)
    later = bench.new_task(NEW | {"delay": 1000.0})
    bench.until(lambda: heard)
    sooner = bench.new_task(NEW | {"delay": 1.0})
    bench.until(lambda: len(heard) > 1)
    first, *others = heard
    heard.clear()
    for answer in (*others, first):
        answer()
    bench.until(lambda: heard, "the sooner task is due")
    heard.pop()()
    bench.until(lambda: bench.zygote.of("fork"), f"task {sooner} is due, and not {later}")


def test_ready_tasks_are_asked_for_one_look_after_the_other(bench: Bench) -> None:
    """Two answers on their way would each know of workers that the other does not."""
    for _ in range(3):
        bench.turn()
    heard = put_off(bench, Ready)
    bench.master.dispatch.kick()
    bench.until(lambda: heard)
    task = bench.submit()
    for _ in range(3):
        bench.turn()
    assert len(heard) == 1

    def hear() -> None:
        assert len(heard) <= 1
        while heard:
            heard.pop()()

    bench.until(lambda: (hear(), bench.zygote.of("fork"))[1])
    worker = bench.fork()
    bench.until(lambda: (hear(), worker.of("run"))[1])
    assert worker.of("run")[0]["task"] == task
