"""One event loop for several async tasks, one after the other."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, suppress
from typing import Any

import pytest
from forked import in_child

from taskd.posix import descriptors
from taskd.protocol import data
from taskd.protocol.saved import Outcome
from taskd.tasks import make_task
from taskd.worker.attempt import Ending, run_attempt
from taskd.worker.eventloop import EventLoop
from taskd.worker.memory_recorder import MemoryRecorder


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    with closing(EventLoop()) as made:
        yield made


def run(fn: Any, loop: EventLoop) -> Any:
    """What the async task ``fn`` returns in that loop."""
    ending = ended(fn, loop)
    assert ending.result is not None, ending
    return data.decode(ending.result)


def ended(fn: Any, loop: EventLoop) -> Ending:
    return run_attempt(make_task(fn, name="job"), {}, None, MemoryRecorder(), loop=loop)


def test_a_lock_of_a_module_that_was_waited_for_works_in_the_next_task(loop: EventLoop) -> None:
    lock, queue = asyncio.Lock(), asyncio.Queue[int]()

    async def job() -> int:
        async def inner() -> None:
            async with lock:
                await asyncio.sleep(0.001)
                queue.put_nowait(1)

        await asyncio.gather(inner(), inner(), inner())
        return sum([await queue.get() for _ in range(3)])

    assert [run(job, loop) for _ in range(3)] == [3, 3, 3]
    assert not loop.is_spoilt


def test_what_a_task_leaves_in_the_loop_ends_with_it(loop: EventLoop) -> None:
    ends: list[str] = []
    kept: list[Any] = []

    async def stays() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0)
            ends.append("task")
            kept.append(asyncio.create_task(stays_too()))

    async def stays_too() -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
        ends.append("another, begun meanwhile")

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            ends.append("generator")

    async def leaves() -> None:
        kept.append(asyncio.create_task(stays()))
        kept.append(numbers())
        await anext(kept[-1])
        running = asyncio.get_running_loop()
        running.run_in_executor(None, lambda: (time.sleep(0.01), ends.append("job")))
        running.add_signal_handler(signal.SIGUSR1, print)
        running.set_exception_handler(lambda *_: ends.append("handler"))
        running.set_debug(True)

    async def looks() -> list[Any]:
        running = asyncio.get_running_loop()
        more = await asyncio.to_thread(int, "5")
        return [len(asyncio.all_tasks()), running.get_debug(), more]

    assert ended(leaves, loop).outcome is Outcome.SUCCEEDED
    assert sorted(ends) == ["another, begun meanwhile", "generator", "job", "task"]
    assert not callable(signal.getsignal(signal.SIGUSR1))
    assert run(looks, loop) == [1, False, 5]
    assert not loop.is_spoilt


def test_a_loop_that_does_not_come_to_rest_is_not_used_again(loop: EventLoop) -> None:
    kept = []

    async def again() -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            kept.append(asyncio.create_task(again()))

    async def leaves() -> int:
        kept.append(asyncio.create_task(again()))
        await asyncio.sleep(0)
        return 1

    assert run(leaves, loop) == 1
    assert loop.is_spoilt


def test_what_ends_the_loops_run_is_how_the_task_ended_and_the_next_one_runs(
    loop: EventLoop,
) -> None:
    async def exits() -> None:
        raise SystemExit(3)

    async def job() -> None:
        other = asyncio.create_task(exits())
        await asyncio.sleep(3600)
        assert not other

    async def next_one() -> int:
        return len(asyncio.all_tasks())

    error = ended(job, loop).error
    assert error is not None
    assert error["type"] == "SystemExit"
    assert run(next_one, loop) == 1


def test_the_loop_knows_its_own_descriptors_and_leaves_no_others(loop: EventLoop) -> None:
    async def job() -> None:
        await asyncio.to_thread(int)

    before = descriptors.opened().keys()
    run_attempt(make_task(job, name="job"), {}, None, MemoryRecorder(), loop=loop)
    assert loop.descriptors
    assert descriptors.opened().keys() - before == loop.descriptors


def test_a_child_that_the_task_forks_leaves_the_loop_as_it_is(loop: EventLoop) -> None:
    async def job() -> int:
        child = os.fork()
        if child == 0:
            return -1
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        return status

    assert in_child(lambda: [run(job, loop), run(job, loop)]) == [0, 0]
