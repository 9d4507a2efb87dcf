"""``taskd.testing.run``: what users test their tasks' resuming with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from taskd import AsyncContext, BadArguments, Context, NotPlainData, TaskHeld, task, testing
from taskd.protocol.saved import Saved
from taskd.worker.memory import Killed


def rows(cursor: int | None, count: int) -> Iterator[tuple[int, int]]:
    for number in range(cursor or 0, count):
        yield number + 1, number


def add_up(ctx: Context, count: int = 10) -> int:
    first: int = ctx.step("first", lambda: 100)
    for row in ctx.each("rows", rows, count, total=count):
        for part in ctx.each("parts", [row, row]):
            ctx.state["sum"] = ctx.state.get("sum", 0) + part
    ctx.step("last", lambda: None)
    return first + int(ctx.state.get("sum", 0))


WHOLE = testing.run(add_up)


def test_a_whole_run_gives_the_result_the_items_and_the_progress() -> None:
    assert (WHOLE.result, WHOLE.interrupted, WHOLE.killed, WHOLE.attempts) == (190, False, False, 1)
    assert WHOLE.items["rows"] == list(range(10))
    assert WHOLE.items["rows/parts"] == [n for n in range(10) for _ in (1, 2)]
    assert WHOLE.progress == (10, 10, "")


@pytest.mark.parametrize("count", range(1, 11))
def test_an_interrupted_run_and_its_rest_repeat_nothing(count: int) -> None:
    part = testing.run(add_up, interrupt_after=("rows", count))
    assert (part.interrupted, part.killed, part.result) == (True, False, None)
    assert part.items["rows"] == list(range(count))
    rest = testing.run(add_up, resume_from=part.saved)
    assert rest.result == WHOLE.result
    for path in WHOLE.items:
        assert part.items[path] + rest.items.get(path, []) == WHOLE.items[path]


@pytest.mark.parametrize("count", range(1, 11))
def test_a_killed_run_repeats_the_item_in_hand_alone(count: int) -> None:
    part = testing.run(add_up, kill_at=("rows", count))
    assert (part.interrupted, part.killed) == (True, True)
    rest = testing.run(add_up, resume_from=part.saved)
    assert rest.result == WHOLE.result
    assert part.items["rows"] == list(range(count))
    assert rest.items["rows"] == list(range(count - 1, 10))
    assert part.items["rows/parts"] + rest.items.get("rows/parts", []) == WHOLE.items["rows/parts"]


def test_an_inner_loop_is_named_by_its_name_or_its_path() -> None:
    for name in ("parts", "rows/parts"):
        part = testing.run(add_up, interrupt_after=(name, 1))
        assert part.items["rows/parts"] == [0]
        assert testing.run(add_up, resume_from=part.saved).result == WHOLE.result


def test_a_run_killed_in_a_step_runs_that_step_again_and_no_other() -> None:
    ran: list[str] = []

    def job(ctx: Context) -> None:
        for name in ("a", "b", "c"):
            ctx.step(name, ran.append, name)

    part = testing.run(job, kill_at="b")
    assert part.saved.steps == {"a": None}
    testing.run(job, resume_from=part.saved)
    assert ran == ["a", "b", "b", "c"]


def test_a_kill_can_not_be_swallowed_into_a_result() -> None:
    def job(ctx: Context) -> str:
        try:
            ctx.step("a", int)
        except BaseException as killed:
            assert isinstance(killed, Killed)
            with pytest.raises(Killed):
                ctx.step("b", int)
        return "alive"

    run = testing.run(job, kill_at="a")
    assert (run.killed, run.result, run.saved.empty) == (True, None, True)


def test_a_saved_state_can_be_resumed_from_more_than_once() -> None:
    part = testing.run(add_up, interrupt_after=("rows", 3))
    before = part.saved.encode()
    assert testing.run(add_up, resume_from=part.saved).result == WHOLE.result
    assert part.saved.encode() == before
    assert testing.run(add_up, resume_from=part.saved).result == WHOLE.result


def test_a_registered_task_and_an_async_one_can_be_run() -> None:
    @task(name="testing.registered", version=3)
    def registered(ctx: Context, x: int) -> int:
        return ctx.step("a", lambda: x)

    run = testing.run(registered, {"x": 5})
    assert (run.result, run.saved.version) == (5, 3)

    async def later(ctx: AsyncContext, count: int) -> int:
        total = 0
        async for row in ctx.each("rows", rows, count):
            ctx.state["sum"] = total = ctx.state.get("sum", 0) + row
        return total

    part = testing.run(later, {"count": 5}, interrupt_after=("rows", 2))
    assert part.items == {"rows": [0, 1]}
    rest = testing.run(later, {"count": 5}, resume_from=part.saved)
    assert (rest.result, rest.items) == (10, {"rows": [2, 3, 4]})


def test_the_tasks_errors_come_out_as_themselves() -> None:
    class OwnError(Exception): ...

    def job() -> None:
        raise OwnError("mine")

    with pytest.raises(OwnError, match="mine"):
        testing.run(job)
    with pytest.raises(NotPlainData, match="the result"):
        testing.run(returns_object)


def returns_object() -> object:
    return object()


def test_a_task_that_cannot_continue_raises_why() -> None:
    items = [[1, 2, 3]]

    def job(ctx: Context) -> None:
        for _ in ctx.each("rows", items[0]):
            pass

    part = testing.run(job, interrupt_after=("rows", 2))
    items[0] = [1, 2]
    with pytest.raises(TaskHeld, match="it had 3 items"):
        testing.run(job, resume_from=part.saved)


def test_arguments_are_checked_and_are_copies_as_they_would_be() -> None:
    given: dict[str, Any] = {"values": [1]}

    def job(values: list[int]) -> list[int]:
        values.append(2)
        return values

    assert testing.run(job, given).result == [1, 2]
    assert given == {"values": [1]}
    with pytest.raises(BadArguments, match="did you mean 'values'"):
        testing.run(job, {"value": 1})
    with pytest.raises(NotPlainData):
        testing.run(job, {"values": object()})


def test_a_named_sleep_takes_no_time_and_begins_a_new_attempt() -> None:
    seen: list[int] = []

    def job(ctx: Context) -> str:
        seen.append(ctx.attempt)
        ctx.sleep(5)
        ctx.sleep(86400, "a day")
        ctx.sleep(86400, "another day")
        return "rested"

    run = testing.run(job)
    assert (run.result, run.attempts, run.interrupted) == ("rested", 3, False)
    assert seen == [1, 2, 3]


def test_a_misspelt_loop_or_step_is_told() -> None:
    for place in ({"interrupt_after": ("row", 3)}, {"kill_at": ("row", 1)}, {"kill_at": "frist"}):
        with pytest.raises(
            ValueError, match=r"in '\w+'; it saved first, last, parts, rows, rows/p"
        ):
            testing.run(add_up, **place)  # type: ignore[arg-type]


def test_more_items_than_there_are_interrupt_nothing() -> None:
    run = testing.run(add_up, interrupt_after=("rows", 11))
    assert (run.interrupted, run.result) == (False, WHOLE.result)


@pytest.mark.parametrize("place", [("rows", 0), ("rows", -1), ("rows", 1.5)])
def test_items_are_counted_from_one(place: Any) -> None:
    with pytest.raises(ValueError, match="counted from 1"):
        testing.run(add_up, kill_at=place)


def test_the_scratch_directory_is_temporary_or_the_callers(tmp_path: Path) -> None:
    def job(ctx: Context) -> str:
        (ctx.scratch / "file").touch()
        return str(ctx.scratch)

    assert not Path(testing.run(job).result).exists()
    assert testing.run(job, scratch=str(tmp_path)).result == str(tmp_path)
    assert (tmp_path / "file").exists()


def test_a_transaction_around_the_whole_loop_is_shown_to_lose_items() -> None:
    """The mistake that the README warns of: effects that are not durable with their item."""
    table: list[int] = []

    def job(ctx: Context) -> None:
        uncommitted: list[int] = []
        for row in ctx.each("rows", rows, 5):
            uncommitted.append(row)
        table.extend(uncommitted)

    part = testing.run(job, interrupt_after=("rows", 3))
    testing.run(job, resume_from=part.saved)
    assert table == [3, 4], "0 to 2 were saved as done and never committed"


def test_what_is_saved_is_a_state_of_its_own() -> None:
    assert isinstance(WHOLE.saved, Saved)
    assert Saved.decode(WHOLE.saved.encode()) == WHOLE.saved
