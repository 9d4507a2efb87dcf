"""Fixtures for pytest, which finds them by itself wherever taskd is installed.

    def test_with_a_real_daemon(taskd_daemon):
        assert import_orders.submit(path="orders.csv").result(timeout=30) == 3

    def test_without_one(taskd_eager):
        assert import_orders.submit(path="orders.csv").result() == 3

``taskd_daemon`` is one daemon for each process of pytest (for each worker of pytest-xdist), started
for the first test that asks for it; what a test has left unfinished is cancelled at its end. Where
the tasks are is said where pytest is configured::

    [tool.pytest.ini_options]
    taskd_modules = ["app.tasks"]     # or: taskd_config = "taskd.toml"

pytest imports this module at its start: so it imports nothing but pytest until a fixture is used.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from taskd.testing.real_daemon import RealDaemon

LOG_SHOWN = 8_000
"""Characters of the daemon's log that a failed test shows."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini("taskd_modules", "the modules that have the tasks, for taskd_daemon", "args", [])
    parser.addini(
        "taskd_config", "the taskd.toml that says so and more, for taskd_daemon", "string"
    )


@pytest.fixture(scope="session")
def _taskd_process(pytestconfig: pytest.Config) -> Iterator[RealDaemon]:
    from taskd.testing.real_daemon import RealDaemon

    root = str(pytestconfig.rootpath)
    config = pytestconfig.getini("taskd_config")
    daemon = RealDaemon(
        root, pytestconfig.getini("taskd_modules"), os.path.join(root, config) if config else None
    )
    yield daemon
    daemon.stop()


@pytest.fixture
def taskd_daemon(_taskd_process: RealDaemon) -> Iterator[RealDaemon]:
    """A real daemon, in which the test's tasks run: ``client``, ``socket``, ``log()``."""
    from taskd.client import default, stand_in

    daemon = _taskd_process
    daemon.check()
    before, elsewhere = default.made, os.environ.get("TASKD_SOCKET")
    other = stand_in.put(None)
    default.made = None
    os.environ["TASKD_SOCKET"] = daemon.socket
    try:
        yield daemon
        daemon.check()
        daemon.clear()
    finally:
        stand_in.put(other)
        default.made = before
        if elsewhere is None:
            os.environ.pop("TASKD_SOCKET", None)
        else:
            os.environ["TASKD_SOCKET"] = elsewhere


@pytest.fixture
def taskd_eager() -> Iterator[None]:
    """What is submitted runs at once, in this process (``taskd.testing.eager``)."""
    from taskd.testing import eager

    with eager():
        yield


@pytest.hookimpl(hookwrapper=True)  # as pytest 7 has it too
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """A failed test shows the log of the daemon that it has used."""
    outcome = yield
    daemon = getattr(item, "funcargs", {}).get("taskd_daemon")
    if daemon is not None and outcome.get_result().failed:
        outcome.get_result().sections.append(("log of taskd", daemon.log()[-LOG_SHOWN:]))
