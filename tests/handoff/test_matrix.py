"""Every step of the handoff fails in every way, and what must come of it comes of it.

After each failure a good deploy goes through, the tasks that were in flight end with every item
done once, and nothing is left behind (``World.check_quiet``).
"""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from matrix import CELLS, Cell, Kind, Outcome, Stage, table
from world import LONG, SHORT, Asking, FaultyDaemon, Verdict, World, go_on

import taskd

FAULTS = {
    Kind.EXCEPTION: "exception",
    Kind.EXIT: "exit",
    Kind.HANG: "hang",
    Kind.KILL: "kill",
    Kind.SEGFAULT: "segfault",
}
"""What the step does by itself; at any other kind it stops, and the world around it changes."""

CRASHES = {Outcome.PREVIOUS, Outcome.NEXT}

WHAT = {
    Outcome.REFUSED: {"refused"},
    Outcome.SERVES: {"served"},
    Outcome.EITHER: {"refused", "served"},
    Outcome.PREVIOUS: {"crashed"},
    Outcome.NEXT: {"crashed", "served"},  # the caller is told before the last step
}


def change(daemon: FaultyDaemon, kind: Kind, pid: int) -> AbstractContextManager[object]:
    """What is different while the stopped process goes on."""
    match kind:
        case Kind.FULL:
            return daemon.full_disk()
        case Kind.DESCRIPTORS:
            return daemon.no_descriptors(pid)
        case Kind.PYTHON:
            return daemon.without_python()
    return contextlib.nullcontext()


def fail(world: World, cell: Cell, path: str) -> Verdict:
    """Ask for the deploy of the release at ``path``, with that failure; what the caller is told."""
    daemon = world.daemon
    step = f"trial: {cell.step}" if cell.stage is Stage.TRIAL else cell.step
    daemon.fail_at(step, FAULTS.get(cell.kind, "stop"))
    with Asking(daemon, path) as caller:
        if cell.kind not in FAULTS:
            stopped = daemon.stopped()
            with change(daemon, cell.kind, stopped):
                go_on(stopped)
                lasts = LONG if cell.outcome is Outcome.REFUSED else SHORT
                if (verdict := caller.verdict(lasts)) is not None:
                    return verdict
        verdict = caller.verdict()
        assert verdict is not None, "no answer"
        return verdict


@pytest.mark.parametrize(
    "cell", [c for c in CELLS if c.redundant is None], ids=lambda cell: cell.name
)
def test_what_a_failure_comes_to(world: World, cell: Cell) -> None:
    daemon = world.daemon
    if cell.kind is Kind.FULL and not daemon.own_disk:
        pytest.skip("a file system that can be filled needs the right to mount one")
    work, before, pid = world.begin(), world.serving, daemon.pid
    tried = world.release()
    with daemon.own_python() if cell.kind is Kind.PYTHON else contextlib.nullcontext():
        verdict = fail(world, cell, world.path_of(tried))
    assert verdict.what in WHAT[cell.outcome], verdict.why
    if cell.outcome in CRASHES:
        work.forget_follower()
        world.restart_after_crash()
        serves = tried if cell.outcome is Outcome.NEXT else before
    else:
        assert daemon.pid == pid
        serves = tried if verdict.what == "served" else before
    assert world.status()["revision"] == serves
    assert world.status()["confirmed"] == world.path_of(serves)
    world.deploy(world.release())
    work.check()
    world.check_quiet()


def test_every_cell_that_is_not_run_says_why() -> None:
    assert all(cell.redundant is None or cell.redundant for cell in CELLS)
    assert len({(c.stage, c.step, c.kind) for c in CELLS}) == len(CELLS)


def test_the_table_in_the_readme_is_the_one_that_is_tested() -> None:
    readme = Path(taskd.__file__).parent.parent / "README.md"
    assert table() in readme.read_text(encoding="utf-8")
