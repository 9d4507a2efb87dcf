"""Fixtures for tests with real processes; this folder is on the module path, so ``support`` is
importable."""

from __future__ import annotations

import compileall
import os
import signal
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from support.daemon import LOG_SHOWN, Daemon
from support.parallel import pytest_cmdline_main as pytest_cmdline_main

import taskd

DAEMONS = pytest.StashKey[list[Daemon]]()
FAILED = pytest.StashKey[bool]()

# How long an example takes says something about the machine, nothing about the code.
settings.register_profile("taskd", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("taskd")

# It would hide what is lost in buffers, C's too: nothing that a test starts is given it.
os.environ.pop("PYTHONUNBUFFERED", None)

# A shell starts what runs in its background with SIGINT ignored, and nohup with SIGHUP, which all
# that a test starts would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows the daemon's log."""
    report = yield
    if report.failed:
        item.stash[FAILED] = True
        for daemon in item.stash.get(DAEMONS, []):
            report.sections.append((f"log of {daemon.root}", daemon.log()[-LOG_SHOWN:]))
    return report


@pytest.fixture(scope="session")
def compiled() -> None:
    """As after an installation: the daemon's start-up is what users see."""
    compileall.compile_dir(os.path.dirname(taskd.__file__), quiet=2)


@pytest.fixture
def new_daemon(compiled: None, request: pytest.FixtureRequest) -> Iterator[Callable[..., Daemon]]:
    """Makes daemons; at the test's end each is stopped and has left no process behind."""
    made = request.node.stash[DAEMONS] = []

    def make(*arguments: Any, kind: type[Daemon] = Daemon, **sections: Any) -> Daemon:
        made.append(kind(*arguments, **sections))
        return made[-1]

    yield make
    failed = request.node.stash.get(FAILED, False)
    try:
        for daemon in made if not failed else []:
            daemon.end()
    finally:
        for daemon in made:
            daemon.clean_up()
