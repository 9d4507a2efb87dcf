"""Where a task leaves when it is asked to, and what is saved then."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from attempts import attempt, result

from taskd import Context, Interrupted
from taskd.protocol.saved import Kind, Outcome
from taskd.worker.memory_recorder import MemoryRecorder


def kinds(recorder: MemoryRecorder) -> list[Kind]:
    return [record.kind for record in recorder.records]


def rows(cursor: int | None, count: int = 5) -> Iterator[tuple[int, str]]:
    for number in range(cursor or 0, count):
        yield number + 1, f"row {number}"


def test_a_wish_is_met_after_the_item_is_saved() -> None:
    recorder = MemoryRecorder()
    done: list[str] = []

    def job(ctx: Context) -> None:
        for row in ctx.each("rows", rows):
            if row == "row 1":
                recorder.ask("leave", "a deploy")
                assert ctx.stopping
            done.append(row)

    ending = attempt(job, recorder=recorder)
    assert (ending.outcome, ending.reason) == (Outcome.LEFT, "a deploy")
    assert done == ["row 0", "row 1"]
    assert recorder.rebuild(None).cursors["rows"].cursor == 2


def test_a_wish_is_met_before_a_step_starts_and_at_a_checkpoint() -> None:
    for leave in (lambda ctx: ctx.step("a", pytest.fail), lambda ctx: ctx.checkpoint()):
        recorder = MemoryRecorder()
        recorder.ask("cancel", "by root")
        ending = attempt(leave, recorder=recorder, name="job")
        assert (ending.outcome, ending.reason) == (Outcome.CANCELLED, "by root")


def test_leaving_runs_finally_is_not_swallowed_by_except_exception_and_is_told_again() -> None:
    recorder = MemoryRecorder()
    recorder.ask()
    order: list[str] = []

    def job(ctx: Context) -> None:
        try:
            try:
                ctx.checkpoint()
            except Exception:
                order.append("swallowed")
        finally:
            for again in (
                lambda: ctx.step("cleanup", int),
                lambda: ctx.each("rows", [1]),
                ctx.checkpoint,
                lambda: ctx.sleep(0),
            ):
                with pytest.raises(Interrupted):
                    again()
                order.append("told again")

    assert attempt(job, recorder=recorder).outcome is Outcome.LEFT
    assert order == ["told again"] * 4


def test_a_task_that_swallows_the_interrupt_and_returns_has_succeeded() -> None:
    recorder = MemoryRecorder()
    recorder.ask()

    def job(ctx: Context) -> str:
        try:
            ctx.checkpoint()
        except Interrupted:
            return "done all the same"
        return "not asked"

    assert result(attempt(job, recorder=recorder)) == "done all the same"


def test_a_disk_that_stays_full_is_left_without_a_half_saved_move() -> None:
    def full(kind: Kind, fields: dict[str, Any]) -> None:
        recorder.ask("leave", "a stop")
        raise Interrupted("cannot save: disk full")

    recorder = MemoryRecorder(before=full)

    def job(ctx: Context) -> None:
        ctx.step("a", int)

    ending = attempt(job, recorder=recorder)
    assert (ending.outcome, ending.progressed) == (Outcome.LEFT, False)
    assert ending.saved.empty


def test_an_interrupt_that_the_task_raised_by_itself_is_its_failure() -> None:
    def job() -> None:
        raise Interrupted("just so")

    ending = attempt(job)
    assert ending.outcome is Outcome.FAILED
    assert ending.error is not None
    assert ending.error["type"] == "Interrupted"


def test_a_snapshot_is_written_when_it_is_wanted_and_says_the_same() -> None:
    recorder = MemoryRecorder(snapshot_every=3)

    def job(ctx: Context) -> None:
        ctx.step("count", int)
        for row in ctx.each("rows", rows, 20):
            ctx.state["last"] = row

    ending = attempt(job, recorder=recorder)
    assert kinds(recorder).count(Kind.SNAPSHOT) > 3
    assert recorder.rebuild(None) == ending.saved


def after_its_effect(
    sleeps: Callable[[Context], None], recorder: MemoryRecorder, kind: str
) -> tuple[Outcome, list[str], int | None]:
    """A loop whose item has its effect, is asked to leave, and then calls ``sleeps``."""
    effects: list[str] = []

    def job(ctx: Context) -> None:
        for row in ctx.each("rows", rows):
            effects.append(row)
            if row == "row 1":
                recorder.ask(kind)
            sleeps(ctx)

    ending = attempt(job, recorder=recorder)
    mark = recorder.rebuild(None).cursors.get("rows")
    return ending.outcome, effects, None if mark is None else mark.cursor


WITHIN_AN_ITEM: dict[str, Callable[[Context], None]] = {
    "a sleep": lambda ctx: ctx.sleep(3600),
    "a named sleep": lambda ctx: ctx.sleep(3600, "pause"),
    "a step": lambda ctx: ctx.step("look", lambda: 1),
}


@pytest.mark.parametrize("where", WITHIN_AN_ITEM)
def test_an_item_whose_effect_is_done_is_not_left_and_done_again(where: str) -> None:
    left, effects, cursor = after_its_effect(WITHIN_AN_ITEM[where], MemoryRecorder(), "leave")
    assert (left, effects, cursor) == (Outcome.LEFT, ["row 0", "row 1"], 2)


@pytest.mark.parametrize("where", WITHIN_AN_ITEM)
def test_a_cancelled_task_leaves_within_an_item(where: str) -> None:
    left, effects, cursor = after_its_effect(WITHIN_AN_ITEM[where], MemoryRecorder(), "cancel")
    assert (left, effects, cursor) == (Outcome.CANCELLED, ["row 0", "row 1"], 1)
