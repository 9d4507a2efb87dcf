"""``testing.eager()`` against a real daemon: one file of a user's tests, run both ways.

The file writes down what came of each submission: result, error with its traceback, state, reason,
attempts. Both runs must write the same. The fixtures are those that pytest finds by itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

APP = """
import asyncio, os, sys
from dataclasses import dataclass
from datetime import datetime, timezone
from decimal import Decimal
from enum import Enum
from pathlib import Path
from taskd import AsyncContext, Client, Context, Interrupted, Secret, current, task

class Color(Enum):
    RED = "red"

@dataclass
class Order:
    id: int
    tags: list[str]

@task
def echoes(value) -> object:
    return value

@task
def shaped(color: Color, order: Order, path: Path, many: list[Color] | None = None) -> list:
    return [color.name, order.id, path.name, [each.name for each in many or ()]]

@task(check=False)
def loose(path: Path) -> str:
    return type(path).__name__

@task
def raises(how: str) -> None:
    if how == "exit":
        sys.exit(3)
    if how == "group":
        raise ExceptionGroup("two", [KeyError("a"), ValueError("b")])
    if how == "interrupted":
        raise Interrupted("of its own")
    try:
        {}["missing"]
    except KeyError as error:
        raise ValueError("as it should") from error

@task
def leaks(password: Secret[str]) -> None:
    raise RuntimeError("cannot log in with " + password.reveal())

@task
def returns_none_plain() -> object:
    return object()

@task(retries=3)
def third_time(ctx: Context) -> list:
    ctx.state["seen"] = ctx.state.get("seen", 0) + 1
    ctx.checkpoint()
    if ctx.attempt < 3:
        raise OSError(f"try {ctx.attempt}")
    return [ctx.state["seen"], ctx.attempt, os.environ["TASKD_ATTEMPT"], current() is ctx]

@task(retries=2, backoff=0)
def never(n: int) -> None:
    raise OSError("down", n)

@task(retries=5, backoff=0, retry_on=OSError)
def gives_up() -> None:
    raise LookupError("not that one")

def rows(cursor, count):
    for n in range(cursor or 0, count):
        yield n + 1, n

@task(retries=1, backoff=0)
def resumes(ctx: Context, count: int) -> list:
    first = ctx.step("first", lambda: ctx.attempt)
    for row in ctx.each("rows", rows, count):
        if row == 3 and ctx.attempt == 1:
            raise OSError("in the middle")
        ctx.state.setdefault("done", []).append([row, ctx.attempt])
    (ctx.scratch / "kept").write_text("x")
    return [first, ctx.state["done"], os.environ["TASKD_SCRATCH"] == str(ctx.scratch)]

@task
def sleeps(ctx: Context) -> int:
    ctx.sleep(1.3, "once")
    return ctx.attempt

@task
async def awaits(ctx: AsyncContext, n: int) -> list:
    await asyncio.sleep(0)
    got = await ctx.step("once", double, n)
    return [got, ctx.attempt]

async def double(n):
    return 2 * n

@task(queue="others")
def asks_another(n: int) -> list:
    task = echoes.submit({"n": n})
    inner = Client().submit("raises", {"how": "error"}).wait(30)
    return [task.result(30), inner.state, inner.error["type"], task.status().name]

@task(queue="others")
async def asks_from_a_loop(n: int) -> object:
    return (await asyncio.to_thread(echoes.submit, n)).result(30)

@task
def cancels_itself(ctx: Context) -> None:
    Client().cancel(int(ctx.id))
    while not ctx.stopping:
        ctx.sleep(0.01)
    ctx.checkpoint()

@task
def moves_its_steps(ctx: Context, n: int) -> None:
    ctx.step("a" if ctx.attempt == 1 else "b", lambda: 1)
    raise OSError("again")
"""

USERS_TESTS = """
import json, os
from datetime import date, datetime, timezone
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pytest
import taskd
from taskd import Client, Secret
import shop
from shop import Color, Order

@pytest.fixture(autouse=True)
def way(request):
    request.getfixturevalue(os.environ["WAY"])

def told(name, what):
    with open(os.environ["TOLD"], "a", encoding="utf-8") as file:
        file.write(json.dumps([name, what], default=repr) + "\\n")

def came_of(task):
    try:
        return ["returned", repr(task.result(60))]
    except Exception as error:
        text = str(error).replace(str(task.id), "ID")
        return [type(error).__name__, text, getattr(error, "__notes__", [])]

SUBMISSIONS = {
    "echo": lambda: shop.echoes.submit([
        None, True, 1, 2**70, 1.5, "x", b"x", (1, 2), {"a": {1, 2}}, datetime(2026, 1, 2),
        datetime.now(timezone.utc).replace(year=2026, month=1, day=1, hour=0, minute=0, second=0,
        microsecond=0), date(2026, 1, 2), Decimal("1.50"), UUID(int=7), Secret("hunter2"),
    ]),
    "shaped": lambda: shop.shaped.submit(Color.RED, Order(7, ["a"]), Path("/a/b"), [Color.RED]),
    "by name": lambda: Client().submit(
        "shaped", {"color": "red", "order": {"id": 1, "tags": []}, "path": "/a/c"}),
    "loose": lambda: shop.loose.submit("x"),
    "error": lambda: shop.raises.submit("error"),
    "exit": lambda: shop.raises.submit("exit"),
    "group": lambda: shop.raises.submit("group"),
    "interrupted": lambda: shop.raises.submit("interrupted"),
    "leak": lambda: shop.leaks.submit(Secret("correct horse battery")),
    "no plain result": lambda: shop.returns_none_plain.submit(),
    "third time": lambda: shop.third_time.submit(),
    "never": lambda: shop.never.submit(3),
    "never, as said": lambda: shop.never.using(retries=1).submit(3),
    "gives up": lambda: shop.gives_up.submit(),
    "resumes": lambda: shop.resumes.submit(6),
    "sleeps": lambda: shop.sleeps.submit(),
    "async": lambda: shop.awaits.submit(21),
    "another": lambda: shop.asks_another.submit(4),
    "from a loop": lambda: shop.asks_from_a_loop.submit(5),
    "options": lambda: shop.echoes.using(key="k", priority=3, queue="others").submit(1),
    "cancelled": lambda: shop.cancels_itself.submit(),
}

@pytest.mark.parametrize("name", SUBMISSIONS)
def test_submission(name):
    task = SUBMISSIONS[name]()
    came = came_of(task)
    info = task.status()
    told(name, [came, info.state, info.shown, info.reason, info.attempt, info.error, info.queue,
                info.priority, info.key, info.owner, info.name, info.run_at,
                [x is None for x in (info.submitted, info.started, info.ended, info.ran)]])

REFUSED = {
    "wrong type": lambda: Client().submit("shaped", {"color": "blue", "order": {}, "path": 3}),
    "wrong type, as a call": lambda: shop.shaped.submit("blue", None, 3),
    "missing": lambda: Client().submit("resumes", {}),
    "unexpected": lambda: Client().submit("resumes", {"count": 1, "cuont": 2}),
    "too many": lambda: shop.resumes.submit(1, 2),
    "no plain data": lambda: shop.echoes.submit(object()),
    "too deep": lambda: shop.echoes.submit([Color.RED]),
    "large": lambda: shop.echoes.submit(b"x" * 2**21),
    "no dict": lambda: Client().submit("echoes", [1]),
    "priority": lambda: Client().submit("echoes", {"value": 1}, priority="high"),
    "unknown": lambda: Client().submit("echoez", {"value": 1}),
}

@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    with pytest.raises(taskd.Refused) as refused:
        REFUSED[name]()
    text = str(refused.value) if name != "unknown" else ""
    told(name, [type(refused.value).__name__, text])

def test_what_is_done_later():
    client = Client()
    done, failed = shop.echoes.submit(1), shop.raises.submit("error")
    states = [client.wait([done.id, failed.id], 60)[n].state for n in (0, 1)]
    cancelled = [done.cancel(), failed.cancel()]
    retried = failed.retry()
    again = came_of(failed)
    with pytest.raises(taskd.Refused) as refused:
        done.retry()
    with pytest.raises(taskd.UnknownTask):
        client.task(10**15)
    found = client.tasks(name="echoes", state="succeeded", limit=1)
    full = client.tasks(name="echoes", limit=1, results=True)
    told("later", [states, cancelled, retried, again, failed.status().attempt,
                   str(refused.value).replace(str(done.id), "ID"),
                   [found[0].id == done.id, found[0].result], [each.result for each in full]])

def test_a_key_is_free_once_its_task_has_ended():
    first = shop.echoes.using(key="orders").submit(1)
    first.result(60)
    second = shop.echoes.using(key="orders").submit(2)
    told("key", [first.id == second.id, second.result(60)])

def test_an_async_client():
    import asyncio

    async def use():
        async with taskd.AsyncClient() as client:
            task = await client.submit("awaits", {"n": 1})
            failed = await client.submit("raises", {"how": "error"})
            with pytest.raises(taskd.TaskFailed):
                await failed.result(60)
            other = shop.echoes.submit(1).result(60)
            return [await task.result(60), (await failed.status()).state, other]

    told("async client", asyncio.run(use()))
"""


def project(path: Path, **files: str) -> Path:
    path.mkdir()
    (path / "shop.py").write_text(APP, encoding="utf-8")
    (path / "pytest.ini").write_text("[pytest]\ntaskd_modules = shop\n", encoding="utf-8")
    for name, text in files.items():
        (path / f"{name}.py").write_text(text, encoding="utf-8")
    return path


def is_found() -> bool:
    """Whether this taskd was installed with its plugin; else it has to be named."""
    return any(each.name == "taskd" for each in entry_points(group="pytest11"))


def run_pytest(where: Path, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            *([] if is_found() else ["-p", "taskd.pytest_plugin"]),
            *args,
        ],
        cwd=where,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    base = tmp_path_factory.mktemp("both")
    where = project(base / "shop", test_shop=USERS_TESTS)
    found = {}
    for way in ("taskd_eager", "taskd_daemon"):
        told = base / f"{way}.json"
        ran = run_pytest(where, WAY=way, TOLD=str(told))
        assert ran.returncode == 0, ran.stdout
        found[way] = dict(map(json.loads, told.read_text(encoding="utf-8").splitlines()))
    return found


def test_both_ways_have_told_of_the_same(outcomes: dict[str, dict[str, Any]]) -> None:
    assert list(outcomes["taskd_eager"]) == list(outcomes["taskd_daemon"])
    assert len(outcomes["taskd_eager"]) == 34 + 1


def test_the_outcomes_are_the_same(outcomes: dict[str, dict[str, Any]]) -> None:
    eager, real = outcomes["taskd_eager"], outcomes["taskd_daemon"]
    assert {name: eager[name] for name in real if eager[name] != real[name]} == {
        name: real[name] for name in real if eager[name] != real[name]
    }
