"""Arguments against the annotations of a task: refused at submission, by the daemon itself."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest
from support.daemon import Daemon
from support.waiting import eventually

import taskd

APP = """
from __future__ import annotations
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from taskd import Secret, task
from side import gate, mark

if TYPE_CHECKING:
    from somewhere import Unknown

@task
def index(path: str, depth: int = 1, mode: Literal["fast", "slow"] = "fast") -> list:
    return [path, depth, mode]

@task(check=False)
def loose(path: str) -> str:
    return type(path).__name__

@task
def forward(order: Order, unknown: Unknown = None, password: Secret[str] | None = None) -> list:
    return [type(order).__name__, order.id, order.colors, type(unknown).__name__]

@dataclass
class Order:
    id: int
    colors: list[str]

class Color(Enum):
    RED = "red"
    GREEN = "green"

@task
def shaped(color: Color, paths: list[Path], orders: dict[str, Order] | None = None) -> list:
    return [color.name, [path.name for path in paths], sorted(orders or {}), color is Color.RED]

@task
def submits() -> list:
    given = shaped.using(priority=1).submit(Color.RED, [Path("/a/b")], {"x": Order(1, [])})
    return given.id

@task(queue="held")
def blocks() -> None:
    mark("blocks")
    gate("go")

@task(queue="held")
def waits(n: int, color: Color = Color.RED) -> list:
    mark("ran")
    return [n, getattr(color, "name", color)]
"""

NARROWER = APP.replace("waits(n: int", "waits(n: str").replace('GREEN = "green"', "")


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    made = new_daemon(queues={"held": {"concurrency": 1}})
    made.with_releases(APP, "r1", "r2")
    made.release("r3", NARROWER)
    return made.start()


def check_all(daemon: Daemon) -> None:
    """What is refused with which words, and what is accepted."""
    with daemon.client() as client:
        for args, told in (
            ({"path": 3}, "index: `path` must be a str, not an int"),
            ({"path": "x", "depth": True}, "index: `depth` must be an int, not a bool"),
            ({"path": "x", "mode": "fsat"}, "index: `mode` must be 'fast' or 'slow', not 'fsat'"),
        ):
            with pytest.raises(taskd.BadArguments) as refused:
                client.submit("index", args)
            assert str(refused.value) == told
        with pytest.raises(taskd.BadArguments, match=r"`paths\[1\]` must be a str, not an int"):
            client.submit("shaped", {"color": "red", "paths": ["a", 1]})
        with pytest.raises(taskd.BadArguments, match="with the fields of Order: it lacks 'colors'"):
            client.submit("forward", {"order": {"id": 1}})
        with pytest.raises(taskd.BadArguments, match="`password` must be a Secret or None, not a"):
            client.submit("forward", {"order": {"id": 1, "colors": []}, "password": "hunter2"})
        assert client.submit("index", {"path": "x"}).result(30) == ["x", 1, "fast"]
        assert client.submit("loose", {"path": 3}).result(30) == "int"
        order = {"id": 7, "colors": ["red"]}
        forward = client.submit("forward", {"order": order, "unknown": 3})
        assert forward.result(30) == ["Order", 7, ["red"], "int"]


def test_wrong_types_are_refused_over_a_deploy_and_kills(daemon: Daemon) -> None:
    check_all(daemon)
    daemon.reload("r2")
    check_all(daemon)
    daemon.kill()
    daemon.start()
    check_all(daemon)  # the zygote lives, and its record says the types
    daemon.kill_everything()
    daemon.start()
    check_all(daemon)


def test_enums_dataclasses_and_paths_go_there_and_back(daemon: Daemon) -> None:
    with daemon.client() as client:
        task = client.submit("submits").result(30)
        assert client.handle(task).result(30) == ["RED", ["b"], ["x"], True]
        by_name = client.submit("shaped", {"color": "green", "paths": []})
        assert by_name.result(30) == ["GREEN", [], [], False]
        with pytest.raises(taskd.BadArguments, match="`color` must be 'red' or 'green', not 'RED'"):
            client.submit("shaped", {"color": "RED", "paths": []})


def test_a_narrowed_type_is_a_warning_and_holds_nothing(daemon: Daemon) -> None:
    """Accepted is accepted: what waits is checked for its binding alone."""
    with daemon.client() as client:
        waiting = [
            client.submit("waits", {"n": n, "color": "green"}, delay=3600, key=f"k{n}")
            for n in range(3)
        ]
        daemon.point("r3")
        plan = client.reload(plan=True)["plan"]
        (warning,) = plan["warnings"]
        assert "waits: 3 tasks wait with such arguments, and of task " in warning
        assert "`n` must be a str, not an int: what was accepted runs" in warning
        assert plan["counts"] == {"continues": 3}
        assert client.reload()["plan"]["warnings"] == [warning]
        assert client.reload()["plan"]["warnings"] == []  # told by the deploy that brought it
        with pytest.raises(taskd.BadArguments, match="`n` must be a str"):
            client.submit("waits", {"n": 3})
        daemon.kill_everything()
        daemon.start()
        for task in waiting:
            assert client.task(task.id).state == "scheduled"


def test_what_was_accepted_runs_on_narrower_code(daemon: Daemon) -> None:
    with daemon.client() as client:
        daemon.reached(client.submit("blocks").id, "blocks")
        task = client.submit("waits", {"n": 1, "color": "green"})
        daemon.reload("r3")
        daemon.open_gate("go")
        assert task.result(30) == [1, "green"]
        assert task.status().revision == "r3"
        log = eventually(lambda: daemon.task_log(task.id), "the log has a line")
    assert "WARNING the argument `color` is passed as it is stored: its class raised Value" in log


def test_a_command_line_says_how_to_write_text(daemon: Daemon) -> None:
    def submit(word: str) -> subprocess.CompletedProcess[str]:
        return daemon.taskctl("submit", "--wait", "index", word)

    refused = submit("path=3")
    assert refused.returncode == 1
    assert "`path` must be a str, not an int (what reads as JSON is that" in refused.stderr
    assert submit('path="3"').returncode == 0
