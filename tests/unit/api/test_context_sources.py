"""What a loop may go over, and what becomes of a source that changed or raised."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from attempts import attempt, outcome, result

from taskd import Context, NotPlainData
from taskd.protocol import data
from taskd.protocol.saved import Mark, Outcome, Saved


def rows(cursor: int | None, count: int = 5) -> Iterator[tuple[int, str]]:
    for number in range(cursor or 0, count):
        yield number + 1, f"row {number}"


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ({"a": 1}, r"list\(the_dict.items\(\)\)"),
        ({1, 2}, "a sorted list"),
        ("text", "a list of what"),
        (b"bytes", "a list of what"),
        (iter([1]), "the generator function itself"),
        (rows(None), "the generator function itself"),
        (5, "a function that takes the last cursor"),
        (None, "None cannot be resumed"),
    ],
)
def test_what_cannot_be_resumed_is_refused_with_what_to_do(source: Any, says: str) -> None:
    with pytest.raises(TypeError, match=says):
        outcome(lambda ctx: ctx.each("rows", source), name="job")


@pytest.mark.parametrize(
    ("yielded", "says"),
    [
        ("row", "type str: it must yield pairs"),
        ((1, 2, 3), "a tuple of 3"),
        ([1, 2], "type list"),
        ((None, 2), "yielded None as the cursor"),
    ],
)
def test_a_source_that_does_not_yield_pairs_is_told(yielded: Any, says: str) -> None:
    def job(ctx: Context) -> None:
        for _ in ctx.each("rows", lambda cursor: iter([yielded])):
            pytest.fail("an item of what is no pair")

    with pytest.raises(TypeError, match=says):
        outcome(job)


def test_a_source_that_returns_no_iterable_is_told() -> None:
    async def later(cursor: Any) -> Any:
        yield 1, 1

    async def once(cursor: Any) -> None: ...

    for source, says in ((int, "type int"), (later, "async"), (once, "async")):
        with pytest.raises(TypeError, match=says):
            outcome(
                lambda ctx, source=source: list(ctx.each("rows", lambda c: source(c or 0))),
                name="job",
            )


def test_arguments_beside_a_sequence_are_refused() -> None:
    with pytest.raises(TypeError, match="no further arguments"):
        outcome(lambda ctx: ctx.each("rows", [1], "path"), name="job")


def test_a_source_that_raised_leaves_its_loop_unfinished() -> None:
    def source(cursor: int | None) -> Iterator[tuple[int, int]]:
        yield 1, 1
        raise OSError("the database is away")

    def job(ctx: Context) -> None:
        held = ctx.each("rows", source)
        next(held)
        with pytest.raises(OSError):
            next(held)
        with pytest.raises(RuntimeError):
            next(held)

    ending = attempt(job)
    assert result(ending) is None
    assert ending.saved.cursors == {"rows": Mark(1, 1)}


def test_the_context_may_not_be_used_by_a_source() -> None:
    def job(ctx: Context) -> None:
        def source(cursor: Any) -> Iterator[tuple[int, int]]:
            ctx.step("x", int)
            yield 1, 1

        for _ in ctx.each("rows", source):
            pass

    with pytest.raises(RuntimeError, match="step 'x' within the source of loop 'rows'"):
        outcome(job)


def test_a_cursor_that_is_too_large_or_not_plain_is_told_before_the_body_runs() -> None:
    for cursor in (b"x" * (data.CURSOR_LIMIT + 1), object()):

        def job(ctx: Context, cursor: Any = cursor) -> None:
            for _ in ctx.each("rows", lambda last: iter([(cursor, 1)])):
                pytest.fail("the body ran")

        with pytest.raises(NotPlainData, match="the cursor of loop 'rows'"):
            outcome(job)


@pytest.mark.parametrize(
    ("now", "says"),
    [
        (["a", "b"], "it had 3 items when its progress was saved and now has 2"),
        (["a", "B", "c"], "the item at index 1"),
        (rows, "saved with a sequence as its source and now has a function"),
    ],
)
def test_a_changed_sequence_holds_the_task(now: Any, says: str) -> None:
    current: list[Any] = [["a", "b", "c"]]

    def job(ctx: Context) -> None:
        for item in ctx.each("rows", current[0]):
            if item == "b":
                raise KeyError

    part = attempt(job)
    assert part.saved.cursors["rows"].cursor == 1
    current[0] = now
    ending = attempt(job, saved=part.saved)
    assert ending.outcome is Outcome.HELD
    assert ending.reason is not None
    assert says in ending.reason
    assert "Deploy code that fits" in ending.reason
    assert ending.saved == part.saved


def test_a_sequence_may_follow_neither_a_function() -> None:
    saved = Saved(1)
    saved.cursors["rows"] = Mark(2, 2)
    ending = attempt(lambda ctx: list(ctx.each("rows", [1, 2, 3])), saved=saved, name="job")
    assert ending.outcome is Outcome.HELD
    assert "now has a sequence" in str(ending.reason)


def test_a_hold_stands_also_if_the_task_swallows_it() -> None:
    saved = Saved(1)
    saved.cursors["rows"] = Mark(2, 2)

    def job(ctx: Context) -> str:
        try:
            return str(list(ctx.each("rows", [1, 2, 3])))
        except BaseException:
            return "all is well"

    assert attempt(job, saved=saved).outcome is Outcome.HELD


def test_a_sequence_that_changes_under_its_loop_is_an_error() -> None:
    def job(ctx: Context) -> None:
        numbers = [1, 2]
        for number in ctx.each("rows", numbers):
            numbers.append(number)

    with pytest.raises(RuntimeError, match="must not change while the loop runs"):
        outcome(job)


def test_a_sequence_whose_next_item_raises_has_saved_the_one_before() -> None:
    class Remote(list[int]):
        def __getitem__(self, index: Any) -> Any:
            if index == 1:
                raise OSError("gone")
            return index

    def job(ctx: Context) -> None:
        for _ in ctx.each("rows", Remote([1, 2])):
            pass

    ending = attempt(job)
    assert isinstance(ending.exception, OSError)
    assert ending.saved.cursors["rows"] == Mark(1, 1, 2, 2, None)


def test_a_range_and_a_tuple_are_sequences() -> None:
    def job(ctx: Context) -> list[int]:
        return [*ctx.each("a", range(3)), *ctx.each("b", (5, 6))]

    assert outcome(job) == [0, 1, 2, 5, 6]


def test_the_cursor_a_source_gets_is_its_own_to_change() -> None:
    def source(cursor: dict[str, int] | None) -> Iterator[tuple[dict[str, int], int]]:
        at = cursor or {"n": 0}
        while at["n"] < 3:
            at["n"] += 1
            yield at, at["n"]

    saved = Saved(1)
    saved.cursors["rows"] = Mark({"n": 1}, 1)

    def job(ctx: Context) -> None:
        for item in ctx.each("rows", source):
            if item == 2:
                raise KeyError

    assert attempt(job, saved=saved).saved.cursors["rows"].cursor == {"n": 1}
