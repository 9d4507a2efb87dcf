"""Loops: where they go on, what belongs to an item, how they are left."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from attempts import attempt, outcome, result

from taskd import Context
from taskd.protocol.saved import Kind, Mark, Outcome, Saved
from taskd.worker.memory_recorder import MemoryRecorder


def kinds(recorder: MemoryRecorder) -> list[Kind]:
    return [record.kind for record in recorder.records]


def rows(cursor: int | None, count: int = 5) -> Iterator[tuple[int, str]]:
    for number in range(cursor or 0, count):
        yield number + 1, f"row {number}"


def test_a_loop_goes_on_where_the_last_attempt_was() -> None:
    seen: list[str] = []

    def job(ctx: Context) -> None:
        for row in ctx.each("rows", rows, 4):
            seen.append(row)

    saved = Saved(1)
    saved.cursors["rows"] = Mark(2, 2)
    ending = attempt(job, saved=saved)
    assert ending.outcome is Outcome.SUCCEEDED
    assert seen == ["row 2", "row 3"]
    assert ending.saved.cursors["rows"] == Mark(None, 4, finished=True)


def test_asking_for_the_next_item_saves_the_cursor_and_the_state_together() -> None:
    recorder = MemoryRecorder()

    def job(ctx: Context) -> None:
        for row in ctx.each("rows", rows):
            ctx.state["last"] = row
            if row == "row 2":
                break

    attempt(job, recorder=recorder)
    assert kinds(recorder) == [Kind.LOOP, Kind.LOOP]
    saved = recorder.rebuild(None)
    assert saved.cursors["rows"].cursor == 2
    assert saved.state == {"last": "row 1"}


def test_a_finished_loop_is_not_entered_again_and_its_source_is_not_called() -> None:
    def source(cursor: Any) -> Iterator[tuple[int, int]]:
        raise AssertionError("called")

    def job(ctx: Context) -> list[Any]:
        return [*ctx.each("a", source), *ctx.each("b", [1, 2])]

    saved = Saved(1)
    saved.cursors = {"a": Mark(None, 3, finished=True), "b": Mark(2, 2, 2, 2, None, True)}
    assert outcome(job, saved=saved) == []


def test_an_empty_loop_is_recorded_as_finished() -> None:
    def job(ctx: Context) -> list[Any]:
        return [*ctx.each("a", lambda cursor: iter(())), *ctx.each("b", [])]

    ending = attempt(job)
    assert result(ending) == []
    assert all(mark.finished for mark in ending.saved.cursors.values())
    assert set(ending.saved.cursors) == {"a", "b"}


def test_break_does_not_save_its_item_and_later_steps_are_outside() -> None:
    def job(ctx: Context) -> None:
        for row in ctx.each("rows", rows):
            ctx.step("inner", str, row)
            if row == "row 1":
                break
        ctx.step("after", int)

    ending = attempt(job)
    assert ending.saved.cursors["rows"].cursor == 1
    assert set(ending.saved.steps) == {"rows/inner", "after"}


def test_an_exception_leaves_the_loops_scope() -> None:
    def job(ctx: Context) -> None:
        try:
            for _outer in ctx.each("outer", [1, 2]):
                for row in ctx.each("rows", rows):
                    raise KeyError(row)
        except KeyError:
            ctx.step("after", int)

    assert set(attempt(job).saved.steps) == {"after"}


def test_a_loop_in_a_function_that_raised_has_ended_too() -> None:
    def inner(ctx: Context) -> None:
        for row in ctx.each("rows", rows):
            raise KeyError(row)

    def job(ctx: Context) -> None:
        with pytest.raises(KeyError):
            inner(ctx)
        ctx.step("after", int)

    assert set(attempt(job).saved.steps) == {"after"}


def test_an_iterator_that_is_held_can_be_closed() -> None:
    def job(ctx: Context) -> None:
        held = ctx.each("rows", rows)
        next(held)
        held.close()
        ctx.step("after", int)
        with pytest.raises(RuntimeError, match="cannot go on"):
            next(held)

    ending = attempt(job)
    assert result(ending) is None
    assert set(ending.saved.steps) == {"after"}


def test_a_loop_that_is_over_stays_over() -> None:
    def job(ctx: Context) -> list[Any]:
        held = ctx.each("rows", [1])
        return [list(held), list(held), list(held)]

    assert outcome(job) == [[1], [], []]


def test_steps_and_loops_in_a_body_belong_to_the_item() -> None:
    ran: list[str] = []

    def job(ctx: Context) -> None:
        for row in ctx.each("rows", rows, 3):
            ctx.step("parse", ran.append, row)
            for part in ctx.each("parts", [1, 2]):
                ctx.step("part", ran.append, f"{row}.{part}")

    ending = attempt(job)
    assert ran == [f"row {n}{more}" for n in range(3) for more in ("", ".1", ".2")]
    assert ending.saved.steps == {}
    assert set(ending.saved.cursors) == {"rows"}


def test_two_loops_in_step_are_told_to_be_one_source() -> None:
    def job(ctx: Context) -> None:
        for _ in zip(ctx.each("a", [1, 2, 3]), ctx.each("b", [1, 2, 3]), strict=True):
            pass

    with pytest.raises(RuntimeError, match="zip them in one source"):
        outcome(job)
