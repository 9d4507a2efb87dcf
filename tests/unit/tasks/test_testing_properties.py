"""For any nest of loops and steps: wherever it is killed or interrupted, the result is the same.

A program is a random tree. Its steps and its items note what they did; an item does so at the end
of its body, where its author must have made its effects durable. An attempt is ended at each
record it writes, and at each place where it looks for a wish, one after the other until an attempt
comes through.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from attempts import attempt
from hypothesis import given, settings, strategies as st

from taskd import AsyncContext, Context
from taskd.protocol import data
from taskd.protocol.saved import Outcome, Saved
from taskd.worker.attempt import Ending
from taskd.worker.memory_recorder import MemoryRecorder


@dataclass(frozen=True)
class Step:
    value: int


@dataclass(frozen=True)
class Checkpoint:
    pass


@dataclass(frozen=True)
class Nap:
    pass


@dataclass(frozen=True)
class Loop:
    items: int
    is_sequence: bool
    body: tuple[Node, ...]


Node = Step | Checkpoint | Nap | Loop

LEAVES = st.one_of(st.builds(Step, st.integers(0, 9)), st.just(Checkpoint()), st.just(Nap()))


def _body(children: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    bodies = st.lists(children, max_size=3).map(tuple)
    return st.builds(Loop, st.integers(0, 3), st.booleans(), bodies)


NODES = st.recursive(LEAVES, _body, max_leaves=5)
PROGRAMS = st.lists(NODES, min_size=1, max_size=3).map(tuple)


@dataclass
class World:
    """What the program did to the world, over all attempts."""

    steps: Counter[str] = field(default_factory=Counter)
    items: Counter[str] = field(default_factory=Counter)

    def step(self, path: str, value: int) -> tuple[str, int]:
        self.steps[path] += 1
        return path, value

    def item(self, state: dict[str, Any], path: str, found: list[Any]) -> None:
        self.items[path] += 1
        state.setdefault("log", []).append((path, found))


def source_of(loop: Loop) -> Any:
    def function(cursor: int | None) -> Iterator[tuple[int, str]]:
        for number in range(cursor or 0, loop.items):
            yield number + 1, f"item {number}"

    return [f"item {n}" for n in range(loop.items)] if loop.is_sequence else function


def run_body(ctx: Context, world: World, nodes: tuple[Node, ...], path: str) -> list[Any]:
    found: list[Any] = []
    for index, node in enumerate(nodes):
        name = f"n{index}"
        match node:
            case Step(value):
                found.append(ctx.step(name, world.step, f"{path}/{name}", value))
            case Checkpoint():
                ctx.checkpoint()
            case Nap():
                ctx.sleep(0.5, name)
            case Loop():
                for item in ctx.each(name, source_of(node)):
                    inner = run_body(ctx, world, node.body, f"{path}/{name}:{item}")
                    world.item(ctx.state, f"{path}/{name}:{item}", inner)
    return found


async def run_async(ctx: AsyncContext, world: World, nodes: tuple[Node, ...], path: str) -> Any:
    found: list[Any] = []
    for index, node in enumerate(nodes):
        name = f"n{index}"
        match node:
            case Step(value):
                found.append(await ctx.step(name, world.step, f"{path}/{name}", value))
            case Checkpoint():
                await ctx.checkpoint()
            case Nap():
                await ctx.sleep(0.5, name)
            case Loop():
                async for item in ctx.each(name, source_of(node)):
                    inner = await run_async(ctx, world, node.body, f"{path}/{name}:{item}")
                    world.item(ctx.state, f"{path}/{name}:{item}", inner)
    return found


Task = Callable[..., Any]


def task_of(program: tuple[Node, ...], world: World, is_async: bool) -> Task:
    def job(ctx: Context) -> list[Any]:
        return [run_body(ctx, world, program, ""), ctx.state]

    async def later(ctx: AsyncContext) -> list[Any]:
        return [await run_async(ctx, world, program, ""), ctx.state]

    return later if is_async else job


class Trigger:
    """Does something when it is called the n-th time."""

    def __init__(self, at: int, action: Callable[[], None]) -> None:
        self._left = at
        self._action = action

    def __call__(self, *_: object) -> None:
        self._left -= 1
        if self._left == 0:
            self._action()


def killed_at(number: int, snapshot_every: int | None, now: float = 0.0) -> MemoryRecorder:
    """Its process dies where it would write that record."""
    trigger = Trigger(number, lambda: recorder.kill())
    recorder = MemoryRecorder(snapshot_every=snapshot_every, before=trigger, now=now)
    return recorder


def asked_at(number: int, snapshot_every: int | None, now: float = 0.0) -> MemoryRecorder:
    """It is asked to leave just before it looks for the n-th time."""
    trigger = Trigger(number, lambda: recorder.ask())
    recorder = MemoryRecorder(snapshot_every=snapshot_every, at_safe_point=trigger, now=now)
    return recorder


def undisturbed_from(now: float) -> MemoryRecorder:
    return MemoryRecorder(now=now)


def go_on(job: Task, recorder: MemoryRecorder, saved: Saved | None) -> tuple[Ending, Saved]:
    """One attempt, and what is kept after it, from its records alone."""
    ending = attempt(job, recorder=recorder, saved=saved)
    kept = recorder.rebuild(saved)
    if not recorder.killed:
        assert kept == ending.saved
        if ending.exception is not None:
            raise ending.exception
    return ending, kept


def whole_run(program: tuple[Node, ...], is_async: bool) -> tuple[Any, World]:
    world = World()
    ending, _ = go_on(task_of(program, world, is_async), undisturbed_from(0.0), None)
    assert ending.result is not None
    return data.decode(ending.result), world


SNAPSHOTS = st.sampled_from([None, 1, 2, 5])
some = settings(max_examples=50, deadline=None)


@some
@given(PROGRAMS, SNAPSHOTS, st.booleans())
def test_a_run_killed_anywhere_and_resumed_repeats_only_what_was_in_hand(
    program: tuple[Node, ...], snapshots: int | None, is_async: bool
) -> None:
    expected, undisturbed = whole_run(program, is_async)
    number, survived = 0, False
    while not survived:
        number += 1
        world = World()
        job = task_of(program, world, is_async)
        recorder = killed_at(number, snapshots)
        ending, saved = go_on(job, recorder, None)
        survived = not recorder.killed
        if recorder.killed:
            ending, _ = go_on(job, undisturbed_from(recorder.now), saved)
        assert ending.result is not None
        assert data.decode(ending.result) == expected
        assert world.items.keys() == undisturbed.items.keys()
        assert world.steps.keys() == undisturbed.steps.keys()
        repeated = (world.items - undisturbed.items) + (world.steps - undisturbed.steps)
        assert repeated.total() <= 1


@some
@given(PROGRAMS, SNAPSHOTS, st.booleans())
def test_a_run_interrupted_anywhere_and_resumed_repeats_nothing(
    program: tuple[Node, ...], snapshots: int | None, is_async: bool
) -> None:
    expected, undisturbed = whole_run(program, is_async)
    number, survived = 0, False
    while not survived:
        number += 1
        world = World()
        job = task_of(program, world, is_async)
        recorder = asked_at(number, snapshots)
        ending, saved = go_on(job, recorder, None)
        survived = ending.outcome is Outcome.SUCCEEDED
        if not survived:
            assert ending.outcome is Outcome.LEFT
            ending, _ = go_on(job, undisturbed_from(recorder.now), saved)
        assert ending.result is not None
        assert data.decode(ending.result) == expected
        assert world == undisturbed


@some
@given(PROGRAMS, SNAPSHOTS, st.booleans())
def test_attempts_that_are_all_killed_after_two_records_come_to_the_same_end(
    program: tuple[Node, ...], snapshots: int | None, is_async: bool
) -> None:
    expected, undisturbed = whole_run(program, is_async)
    world = World()
    job = task_of(program, world, is_async)
    saved: Saved | None = None
    now = 0.0
    for _ in range(1000):
        recorder = killed_at(3, snapshots, now)  # two records at least are written each time
        ending, saved = go_on(job, recorder, saved)
        now = recorder.now
        if not recorder.killed:
            break
    else:
        pytest.fail("no attempt got on")
    assert ending.result is not None
    assert data.decode(ending.result) == expected
    assert world.items.keys() == undisturbed.items.keys()
    assert world.steps.keys() == undisturbed.steps.keys()


@some
@given(PROGRAMS, SNAPSHOTS, st.booleans())
def test_attempts_that_are_all_asked_to_leave_come_to_the_same_end_and_repeat_nothing(
    program: tuple[Node, ...], snapshots: int | None, is_async: bool
) -> None:
    expected, undisturbed = whole_run(program, is_async)
    world = World()
    job = task_of(program, world, is_async)
    saved: Saved | None = None
    now = 0.0
    for number in range(1, 1000):  # later each time: an attempt may end before it got on
        recorder = asked_at(number, snapshots, now)
        ending, saved = go_on(job, recorder, saved)
        now = recorder.now
        if ending.outcome is Outcome.SUCCEEDED:
            break
    else:
        pytest.fail("no attempt got on")
    assert ending.result is not None
    assert data.decode(ending.result) == expected
    assert world == undisturbed
