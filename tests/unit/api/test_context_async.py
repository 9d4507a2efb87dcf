"""What an async task can do with its context: the same, with ``await``, and one thing at a time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from attempts import attempt, outcome, result

import taskd
from taskd import AsyncContext
from taskd.protocol.saved import Mark, Outcome, Saved
from taskd.worker.memory_recorder import MemoryRecorder


async def rows(cursor: int | None, count: int = 4) -> AsyncIterator[tuple[int, str]]:
    for number in range(cursor or 0, count):
        await asyncio.sleep(0)
        yield number + 1, f"row {number}"


def plain_rows(cursor: int | None, count: int = 4) -> Iterator[tuple[int, str]]:
    for number in range(cursor or 0, count):
        yield number + 1, f"row {number}"


async def fetch(value: Any) -> Any:
    await asyncio.sleep(0)
    return value


def test_steps_take_async_and_plain_functions() -> None:
    async def job(ctx: AsyncContext) -> list[Any]:
        return [await ctx.step("a", fetch, 1), await ctx.step("b", lambda: (2,))]

    ending = attempt(job)
    assert result(ending) == [1, (2,)]
    assert ending.saved.steps == {"a": 1, "b": (2,)}

    async def again(ctx: AsyncContext) -> list[Any]:
        return [await ctx.step("a", pytest.fail), await ctx.step("b", pytest.fail)]

    assert result(attempt(again, saved=ending.saved)) == [1, (2,)]


@pytest.mark.parametrize("source", [rows, plain_rows])
def test_loops_take_async_and_plain_generators_and_go_on_where_they_were(source: Any) -> None:
    async def job(ctx: AsyncContext) -> list[str]:
        return [row async for row in ctx.each("rows", source, 3)]

    assert outcome(job) == ["row 0", "row 1", "row 2"]
    saved = Saved(1)
    saved.cursors["rows"] = Mark(2, 2)
    ending = attempt(job, saved=saved)
    assert result(ending) == ["row 2"]
    assert ending.saved.cursors["rows"].finished


def test_loops_take_sequences_and_functions_that_are_awaited() -> None:
    async def opened(cursor: int | None) -> AsyncIterator[tuple[int, str]]:
        await asyncio.sleep(0)
        return rows(cursor)

    async def job(ctx: AsyncContext) -> list[Any]:
        first = [item async for item in ctx.each("list", [1, 2])]
        return [*first, *[item async for item in ctx.each("opened", opened)]]

    assert outcome(job) == [1, 2, "row 0", "row 1", "row 2", "row 3"]


def test_nested_scopes_break_and_later_steps() -> None:
    async def job(ctx: AsyncContext) -> None:
        async for row in ctx.each("rows", rows):
            await ctx.step("inner", fetch, row)
            async for _ in ctx.each("parts", [1, 2]):
                await ctx.step("part", fetch, 1)
            if row == "row 1":
                break
        await ctx.step("after", fetch, 1)

    ending = attempt(job)
    assert result(ending) is None
    assert ending.saved.cursors["rows"].cursor == 1
    assert set(ending.saved.steps) == {"rows/inner", "after"}


def test_two_steps_at_once_are_an_error() -> None:
    async def job(ctx: AsyncContext) -> None:
        await asyncio.gather(ctx.step("a", fetch, 1), ctx.step("b", fetch, 2))

    with pytest.raises(RuntimeError, match="while another call of the context has not returned"):
        outcome(job)


def test_two_loops_at_once_are_an_error() -> None:
    async def loop(ctx: AsyncContext, name: str) -> None:
        async for _ in ctx.each(name, rows):
            await asyncio.sleep(0)

    async def job(ctx: AsyncContext) -> None:
        await asyncio.gather(loop(ctx, "a"), loop(ctx, "b"))

    with pytest.raises(RuntimeError, match="another"):
        outcome(job)


def test_a_step_of_another_asyncio_task_while_a_loop_is_open_is_an_error() -> None:
    async def job(ctx: AsyncContext) -> None:
        async for _ in ctx.each("rows", [1]):
            await asyncio.create_task(ctx.step("a", fetch, 1))

    with pytest.raises(RuntimeError, match=r"loop 'rows', which is open.*asyncio\.timeout"):
        outcome(job)


def test_a_time_limit_around_a_step_in_a_loop_works() -> None:
    async def job(ctx: AsyncContext) -> list[int]:
        found = []
        async for number in ctx.each("rows", [1, 2]):
            async with asyncio.timeout(60):
                found.append(await ctx.step("a", fetch, number))
        return found

    assert outcome(job) == [1, 2]


def test_a_step_within_a_step_is_an_error() -> None:
    async def job(ctx: AsyncContext) -> None:
        async def outer() -> None:
            await ctx.step("inner", fetch, 1)

        await ctx.step("outer", outer)

    with pytest.raises(RuntimeError, match="step 'inner' within step 'outer'"):
        outcome(job)


def test_a_cancelled_step_keeps_nothing_and_may_be_tried_again() -> None:
    async def job(ctx: AsyncContext) -> int:
        step = asyncio.create_task(ctx.step("a", asyncio.Event().wait))
        await asyncio.sleep(0)
        step.cancel()
        with pytest.raises(asyncio.CancelledError):
            await step
        return int(await ctx.step("a", fetch, 5))

    assert outcome(job) == 5


def test_an_async_source_that_raised_leaves_its_loop_unfinished() -> None:
    async def source(cursor: int | None) -> AsyncIterator[tuple[int, int]]:
        yield 1, 1
        raise OSError("away")

    async def job(ctx: AsyncContext) -> None:
        async for _ in ctx.each("rows", source):
            pass

    ending = attempt(job)
    assert isinstance(ending.exception, OSError)
    assert ending.saved.cursors == {"rows": Mark(1, 1)}


def test_a_source_that_is_no_iterable_is_told() -> None:
    async def job(ctx: AsyncContext) -> None:
        async for _ in ctx.each("rows", lambda cursor: 5):  # type: ignore[arg-type, return-value]
            pass

    with pytest.raises(TypeError, match="type int: it must be a generator"):
        outcome(job)


def test_sleeping_lets_other_asyncio_tasks_go_on() -> None:
    recorder = MemoryRecorder(now=0.0)

    async def job(ctx: AsyncContext) -> None:
        await ctx.sleep(100)
        await ctx.sleep(5, "pause")

    ending = attempt(job, recorder=recorder)
    assert (ending.outcome, ending.wake) == (Outcome.SLEEPING, 105.0)
    assert result(attempt(job, recorder=MemoryRecorder(now=105.0), saved=ending.saved)) is None


def test_a_wish_ends_a_sleep() -> None:
    recorder = MemoryRecorder()

    async def job(ctx: AsyncContext) -> None:
        recorder.ask("leave", "a deploy")
        await ctx.sleep(100)

    ending = attempt(job, recorder=recorder)
    assert (ending.outcome, ending.reason) == (Outcome.LEFT, "a deploy")


def test_a_cancelled_sleep_leaves_no_thread_behind() -> None:
    class Waiting(MemoryRecorder):
        """Waits as long as the condition takes, as a real recorder does."""

        def wait_for(self, condition: Any, seconds: float | None = None) -> bool:
            return super().wait_for(condition)

    async def job(ctx: AsyncContext) -> str:
        sleep = asyncio.create_task(ctx.sleep(1e6))
        while not sleep._fut_waiter:  # type: ignore[attr-defined]
            await asyncio.sleep(0)
        sleep.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sleep
        return "on"

    before = set(threading.enumerate())
    assert outcome(job, recorder=Waiting()) == "on"
    assert set(threading.enumerate()) <= before


def test_a_wish_is_met_at_safe_points() -> None:
    recorder = MemoryRecorder()
    done: list[str] = []

    async def job(ctx: AsyncContext) -> None:
        async for row in ctx.each("rows", rows):
            if row == "row 1":
                recorder.ask()
            done.append(row)

    assert attempt(job, recorder=recorder).outcome is Outcome.LEFT
    assert done == ["row 0", "row 1"]
    assert recorder.rebuild(None).cursors["rows"].cursor == 2


def test_state_checkpoint_and_current() -> None:
    async def job(ctx: AsyncContext) -> bool:
        ctx.state["n"] = 1
        await ctx.checkpoint()
        return taskd.current() is ctx  # type: ignore[comparison-overlap]

    ending = attempt(job)
    assert result(ending) is True
    assert ending.saved.state == {"n": 1}


def test_another_thread_may_not_save() -> None:
    async def job(ctx: AsyncContext) -> str:
        def use() -> str:
            try:
                ctx.each("rows", [1])
            except RuntimeError as error:
                return str(error)
            return "allowed"

        return await asyncio.to_thread(use)

    assert "in another thread" in outcome(job)
