"""Source text of tasks that the apps of more than one test have; each stands at the app's head."""

from __future__ import annotations

WAITS = """
from taskd import task
from side import gate, mark

@task
def waits() -> int:
    mark("began")
    gate("end")
    return 1
"""

WAITS_WITH = """
from taskd import task
from side import gate, mark

@task
def waits(n: int = 0) -> int:
    mark("waits")
    gate("go")
    return n
"""

HOLDS = """
import os
from side import gate, mark
from taskd import Context, task

@task
def holds(ctx: Context, size: int) -> int:
    if "data" not in ctx.state:
        ctx.state["data"] = os.urandom(size)
        ctx.checkpoint()
    mark("saved")
    gate("go")
    return len(ctx.state["data"])
"""
"""It has saved that many bytes when it waits."""
