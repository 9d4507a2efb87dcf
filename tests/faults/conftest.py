"""Fixtures of the tests of faults."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support.daemon import Daemon
from support.mounts import Mounted

APP = """
import os
from taskd import task
from side import attempt, gate, mark, until_asked

@task
def quick(ctx, text="") -> int:
    mark("quick")
    return len(text)

@task(on_deploy="checkpoint")
def loop(ctx, count=6, stop_at=3, gate_name="go") -> int:
    for n in ctx.each("items", range(count)):
        if n == stop_at and attempt() == 1:
            gate(gate_name)
        mark(n)
        ctx.state["done"] = ctx.state.get("done", 0) + 1
    return ctx.state["done"]

@task
def talk(ctx, gate_name="go") -> str:
    print("before", flush=True)
    mark("before")
    gate(gate_name)
    for _ in range(50):
        print("x" * 1000)
        ctx.log.info("a line")
    mark("talked")
    gate(gate_name + "-2")
    print("after")
    return "done"
"""


@pytest.fixture
def mounted(new_daemon: Callable[..., Daemon]) -> Callable[..., Mounted]:
    """A daemon with the app above, not started: its directories can still be mounted."""

    def make(**sections: Any) -> Mounted:
        daemon = new_daemon(kind=Mounted, **sections)
        assert isinstance(daemon, Mounted)
        return daemon.with_releases(APP, "r1", "r2")

    return make
