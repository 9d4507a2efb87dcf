"""Three revisions alive at once, each with tasks; they drain in any order."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations

import pytest
from support.daemon import Daemon, repeated
from support.waiting import eventually

APP = """
from taskd import task
from side import gate, mark

@task
def stays(ctx, end: str) -> str:
    for i in ctx.each("items", range(3)):
        mark(i)
        if i == 1:
            gate(end)
    return "REVISION"
"""

NAMES = ("r1", "r2", "r3")


def states(daemon: Daemon) -> dict[str, str]:
    return {each["revision"]: each["state"] for each in daemon.client().revisions()}


@pytest.mark.parametrize("order", list(permutations(NAMES)), ids="-".join)
def test_three_revisions_drain_in_any_order(
    new_daemon: Callable[..., Daemon], order: tuple[str, ...]
) -> None:
    """The current one is not left: its tasks end, and it stays."""
    daemon = new_daemon()
    tasks = {}
    for name in NAMES:
        daemon.release(name, APP.replace("REVISION", name))
        daemon.point(name)
        if name == NAMES[0]:
            daemon.start()
        else:
            daemon.reload()
        tasks[name] = [daemon.client().submit("stays", {"end": name}) for _ in range(2)]
        for task in tasks[name]:
            daemon.reached(task.id, "1")
    assert states(daemon) == {"r1": "draining", "r2": "draining", "r3": "current"}
    left = dict.fromkeys(NAMES)
    for name in order:
        daemon.open_gate(name)
        assert [task.result(30) for task in tasks[name]] == [name, name]
        if name != "r3":
            del left[name]
        eventually(lambda left=tuple(left): tuple(sorted(states(daemon))) == left, "it is gone")
        eventually(lambda left=tuple(left): tuple(sorted(daemon.zygotes())) == left, "its zygote")
    assert repeated(daemon.effects()) == {}
    assert {e.attempt for e in daemon.effects()} == {1}
