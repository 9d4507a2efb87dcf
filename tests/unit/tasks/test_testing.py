"""``taskd.testing.run``: what users test their tasks' resuming with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from taskd import (
    AsyncContext,
    BadArguments,
    Context,
    NotPlainData,
    SavedState,
    TaskHeld,
    task,
    testing,
)
from taskd.api.source import fingerprint
from taskd.protocol.saved import Mark, Saved
from taskd.tasks import make_task
from taskd.worker.memory_recorder import Killed


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


# ── migrations ───────────────────────────────────────────────────────────────────────────────────


def add_up_again(ctx: Context, count: int, factor: int) -> int:
    for row in ctx.each("numbers", rows, count):
        ctx.state["sum"] = ctx.state.get("sum", 0) + row
    ctx.sleep(60, "nap")
    return factor * int(ctx.state["sum"])


def newer(migration: Any) -> Any:
    made = make_task(add_up_again, name="add_up", version=2)
    made.migrate(1)(migration)
    return made


def to_2(saved: SavedState) -> None:
    saved.args.setdefault("factor", 10)
    saved.rename("rows", "numbers")


def old(ctx: Context, count: int) -> None:
    for row in ctx.each("rows", rows, count):
        ctx.state["sum"] = ctx.state.get("sum", 0) + row


@pytest.mark.parametrize("count", range(1, 5))
def test_what_an_older_version_saved_is_migrated(count: int) -> None:
    part = testing.run(old, {"count": 5}, interrupt_after=("rows", count))
    rest = testing.run(newer(to_2), {"count": 5}, resume_from=part.saved)
    assert rest.result == 100
    assert part.items["rows"] + rest.items.get("numbers", []) == [0, 1, 2, 3, 4]
    assert (rest.saved.version, rest.attempts) == (2, 3)
    assert part.saved.version == 1


def test_what_was_saved_stands_until_the_migrated_task_saves() -> None:
    part = testing.run(old, {"count": 5}, interrupt_after=("rows", 2))
    killed = testing.run(newer(to_2), {"count": 5}, resume_from=part.saved, kill_at=("numbers", 3))
    assert (killed.killed, killed.saved) == (True, part.saved)
    once = testing.run(
        newer(to_2), {"count": 5}, resume_from=part.saved, interrupt_after=("numbers", 3)
    )
    assert once.saved.args == {"count": 5, "factor": 10}
    assert testing.run(newer(to_2), {"count": 5}, resume_from=once.saved).result == 100


def test_arguments_that_were_submitted_to_an_older_version_are_migrated() -> None:
    run = testing.run(newer(to_2), {"count": 5}, submitted_at=1)
    assert (run.result, run.attempts) == (100, 2)
    with pytest.raises(BadArguments, match="missing argument 'factor'"):
        testing.run(newer(to_2), {"count": 5})


def test_a_migration_that_fails_holds_the_task() -> None:
    def fails(saved: SavedState) -> None:
        raise KeyError("lines")

    part = testing.run(old, {"count": 5}, interrupt_after=("rows", 2))
    with pytest.raises(TaskHeld, match=r"from version 1 to 2 \(fails, .*raised KeyError: 'lines'"):
        testing.run(newer(fails), {"count": 5}, resume_from=part.saved)
    with pytest.raises(TaskHeld, match="saved by version 2, this code is version 1"):
        state = Saved(2)
        state.state["sum"] = 1
        testing.run(old, {"count": 5}, resume_from=state)


# ── a cursor that a migration has set, and the kinds of sources ──────────────────────────────────


def resumed(source: Any, mark: Mark, **change: Any) -> list[Any]:
    """The items that a loop over ``source`` still does after a migration has set its cursor."""

    def job(ctx: Context) -> None:
        for _ in ctx.each("new", source):
            pass

    def move(saved: SavedState) -> None:
        saved.cursors["new"] = change.get("cursor", saved.cursors["old"])
        del saved.cursors["old"]

    made = make_task(job, name="job", version=2)
    made.migrate(1)(move)
    state = Saved(1)
    state.cursors["old"] = mark
    return testing.run(made, resume_from=state).items.get("new", [])


def numbers(cursor: int | None) -> Iterator[tuple[int, int]]:
    return rows(cursor, 4)


SEQUENCE = Mark(2, 2, 4, 4, fingerprint(2))


def test_a_renamed_loop_goes_on_and_a_finished_one_is_not_entered_again() -> None:
    assert resumed([0, 1, 2, 3], SEQUENCE) == [2, 3]
    assert resumed(numbers, Mark(2, 2)) == [2, 3]
    for source in ([0, 1, 2, 3], numbers):
        assert resumed(source, Mark(None, 4, finished=True)) == []


def test_a_renamed_loop_over_a_sequence_still_notices_that_it_changed() -> None:
    with pytest.raises(TaskHeld, match="the sequence of loop 'new' changed"):
        resumed([0, 1, 9, 3], SEQUENCE)


def test_a_migration_answers_for_the_cursor_that_it_sets_whatever_the_source_was() -> None:
    assert resumed(numbers, SEQUENCE) == [2, 3]
    assert resumed([0, 1, 2, 3], Mark("two", 2), cursor=2) == [2, 3]
    assert resumed([0, 1, 2, 3, 4, 5], SEQUENCE, cursor=3) == [3, 4, 5]
    assert resumed([0, 1, 2, 3], SEQUENCE, cursor=4) == []
    for wrong in (5, -1, "two", True):
        with pytest.raises(TaskHeld, match="a migration set the cursor of loop 'new' to"):
            resumed([0, 1, 2, 3], SEQUENCE, cursor=wrong)
