"""A daemon whose own taskd, and whose releases', are each of a version that the test chooses."""

from __future__ import annotations

import os
import subprocess
from typing import Any, ClassVar

from pythons import Python
from support.daemon import TASKCTL, Daemon

APP = """
import os
from datetime import date
from decimal import Decimal
from uuid import UUID
import taskd
from taskd import task
from side import gate, mark, until_asked

def rows(cursor, n):
    for i in range(cursor or 0, n):
        yield i + 1, i

def story(ctx, n, wait):
    ctx.step("first", mark, "first")
    for i in ctx.each("items", rows, n, total=n):
        mark(i)
        if i == 0:
            wait()
        ctx.state["seen"] = ctx.state.get("seen", 0) + 1
        ctx.progress(i + 1, n, "going on")
    return [ctx.state["seen"], "REVISION", taskd.__version__]

@task
def stays(ctx, n):
    return story(ctx, n, lambda: gate("go"))

@task(on_deploy="checkpoint")
def moves(ctx, n):
    return story(ctx, n, lambda: until_asked(ctx))

@task(on_deploy="checkpoint")
def travels(ctx, n):
    for i in ctx.each("items", range(n)):
        mark(i)
        gate(f"item-{i}")
        ctx.state["on"] = ctx.state.get("on", []) + ["REVISION"]
        until_asked(ctx) if i < n - 1 else None
    return ctx.state["on"]

@task
def which():
    return ["REVISION", taskd.__version__]

@task
async def alongside(ctx):
    await ctx.step("a", str, "a")
    async for i in ctx.each("items", [1, 2]):
        await ctx.sleep(0.001)
    return {"plain": {Decimal("1.5"), 2}, "at": date(2026, 11, 22), "id": UUID(int=7)}

@task
def returns_an_object():
    return object()

@task
def fails():
    raise ValueError("as it should")

@task
def always_dies():
    os._exit(9)

@task(retries=0)
def dies(ctx):
    if ctx.attempt == 1:
        os._exit(9)
    return "after all"
"""


class Skewed(Daemon):
    """Started with ``python``; a release without another one runs on that too.

    A release's Python is its own ``.venv``.
    """

    usual_app: ClassVar[dict[str, Any]] = {}  # the version before knows nothing else

    def __init__(self, python: Python, **sections: Any) -> None:
        self.python = python
        super().__init__(**sections)

    def write_config(self) -> None:
        super().write_config()
        with open(self.path("taskd.toml"), encoding="utf-8") as file:
            lines = [line for line in file if not line.startswith("python = ")]
        with open(self.path("taskd.toml"), "w", encoding="utf-8") as file:
            file.writelines(lines)

    def environment(self) -> dict[str, str]:
        """Each Python finds its own taskd, never the one under test by the tests' own path."""
        found = super().environment()
        found.pop("PYTHONPATH", None)
        return found | {"TASKD_FAULT": self.path("fault")}

    def let_fail(self, step: str) -> None:
        """The next time that an image of this daemon comes to the step, it fails there."""
        with open(self.path("fault"), "w", encoding="utf-8") as file:
            file.write(f"{step} exception")

    def spawn(self, *arguments: str) -> subprocess.Popen[bytes]:
        command = [self.python.program, "-P", "-m", "taskd", "run"]
        with open(self.path("log"), "ab") as log:
            return subprocess.Popen(
                [*command, "--config", self.path("taskd.toml"), *arguments],
                env=self.environment(),
                cwd=self.root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def with_app(self, name: str, python: Python | None = None, app: str = APP) -> str:
        """A release with this app, and with that Python as its own."""
        path = self.release(name, app.replace("REVISION", name))
        if python is not None:
            python.be_of(path)
        return path

    def which(self) -> list[str]:
        """The release, and the version of taskd, that a fresh task runs on."""
        with self.client() as client:
            found: list[str] = client.submit("which").result(30)
        return found

    def serving(self) -> tuple[str, str]:
        """The revision that serves, and the version of the daemon itself."""
        with self.client() as client:
            status = client.status()
        return status["revision"], status["taskd"]

    def taskctl(
        self, *words: str, python: Python | None = None
    ) -> subprocess.CompletedProcess[str]:
        return self.run_python(TASKCTL, "--socket", self.control, *words, python=python)

    def run_python(
        self, script: str, *words: str, python: Python | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a script with a Python's taskd; its own is the daemon's."""
        return subprocess.run(
            [(python or self.python).program, "-P", "-c", script, *words],
            env=self.environment() | {"COLUMNS": "200"},
            cwd=self.root,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def pid_is_still(self, pid: int) -> bool:
        assert self.process is not None
        return self.process.poll() is None and self.pid == pid and os.path.exists(f"/proc/{pid}")
