"""What an app does at import that each of its forked workers would have in common."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator

import pytest
from support.daemon import Daemon
from support.waiting import eventually

from taskd.errors import DeployRefused

APP = """
import socket
from taskd import task

connection = socket.create_connection(("127.0.0.1", {port}))

@task
def works() -> int:
    return 1
"""

NUMBERS = """
import random
_state = random.Random(7)

def seed(value=None):
    _state.seed(value)

def rand():
    return _state.random()
"""

DRAWS = """
import os, random
import numpy.random
from taskd import task
from side import mark, gate

random.seed(7)
numpy.random.seed(7)

@task
def draws() -> list:
    mark("begin")
    gate("go")
    return [os.getpid(), random.random(), numpy.random.rand()]
"""


@pytest.fixture
def port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0), backlog=50) as server:
        yield server.getsockname()[1]


def test_a_connection_opened_at_import_is_told_in_the_deploy_and_the_log(
    new_daemon: Callable[..., Daemon], port: int
) -> None:
    daemon = new_daemon()
    for name in ("r1", "r2"):
        daemon.release(name, APP.format(port=port))
    daemon.point("r1")
    daemon.start()
    why = f"the app opens connections at import (127.0.0.1:{port}), which its workers share"
    assert why in daemon.log()
    plan = daemon.reload("r2")["plan"]
    assert [each for each in plan["warnings"] if why in each]


def test_a_module_of_the_apps_in_the_place_of_one_that_workers_need_is_refused_by_its_file(
    new_daemon: Callable[..., Daemon], port: int
) -> None:
    daemon = new_daemon()
    for name in ("r1", "r2"):
        path = daemon.release(name, APP.format(port=port))
    with open(os.path.join(path, "queue.py"), "w", encoding="utf-8") as file:
        file.write("MINE = 1")
    daemon.point("r1")
    daemon.start()
    with pytest.raises(DeployRefused, match=r"r2/queue\.py"):
        daemon.reload("r2")


def test_workers_that_are_started_afresh_share_no_connection(
    new_daemon: Callable[..., Daemon], port: int
) -> None:
    daemon = new_daemon(app={"fork": "never"})
    daemon.with_releases(APP.format(port=port), "r1")
    assert daemon.start().client().submit("works").result(30) == 1
    assert "at import" not in daemon.log()


def test_global_generators_give_each_worker_numbers_of_its_own(
    new_daemon: Callable[..., Daemon],
) -> None:
    """A module of that name stands for numpy, which is not installed for tests."""
    daemon = new_daemon(queues={"default": {"concurrency": 3}})
    path = daemon.release("r1", DRAWS)
    os.mkdir(os.path.join(path, "numpy"))
    for name, text in (("__init__.py", ""), ("random.py", NUMBERS)):
        with open(os.path.join(path, "numpy", name), "w", encoding="utf-8") as file:
            file.write(text)
    daemon.point("r1")
    client = daemon.start().client()
    tasks = [client.submit("draws") for _ in range(3)]
    eventually(lambda: len(daemon.effects()) == 3, "all three run")
    daemon.open_gate("go")
    drawn = list(zip(*[task.result(30) for task in tasks], strict=True))
    assert [len(set(each)) for each in drawn] == [3, 3, 3]
