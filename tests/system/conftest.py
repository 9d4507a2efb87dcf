"""A booted Debian for each test, with systemd 252 and with 257, and taskd installed in /opt/taskd.

Needs root and the tools that `.ci/run` installs. Without them these tests are skipped, but never
where $CI or $TASKD_SYSTEM_TESTS is set: there a missing tool is a failure.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support import roots, wheels
from support.machine import TOOLS, Machine
from support.roots import Debian, make_layer

MACHINES = pytest.StashKey[list[Machine]]()
REQUIRED = ("CI", "TASKD_SYSTEM_TESTS")
JOURNAL_SHOWN = 8000
LONGEST = 900
"""Seconds that a test may take, the first of which makes the roots."""

INSTALL = """
python3 -m venv /opt/taskd
/opt/taskd/bin/pip install -q --no-index --find-links /wheels taskd-supervisor
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.timeout(LONGEST))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows the journal of its machines."""
    report = yield
    if report.failed:
        for machine in item.stash.get(MACHINES, []):
            text = machine.journal() if machine.leader else machine.console()
            report.sections.append((f"journal of {machine.name}", text[-JOURNAL_SHOWN:]))
    return report


@pytest.fixture(scope="session")
def able() -> None:
    """Skips where machines cannot be booted, and fails where they must be."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if os.getuid() == 0 and not missing:
        return
    why = f"missing: {', '.join(missing)}" if missing else "needs root"
    if any(os.environ.get(name) for name in REQUIRED):
        pytest.fail(f"the system tests must run here, but cannot ({why})")
    pytest.skip(f"the system tests cannot run here ({why})")


@pytest.fixture(scope="session")
def bare(able: None) -> dict[Debian, Path]:
    """The roots as Debian makes them."""
    return roots.make_all()


@pytest.fixture(scope="session")
def workshop(able: None) -> Iterator[Path]:
    """A directory for what this run makes; not pytest's own, which keeps old ones."""
    path = Path(tempfile.mkdtemp(prefix="taskd-system-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def installed(bare: dict[Debian, Path], workshop: Path) -> Callable[[Debian], list[Path]]:
    """The layers of a Debian with the wheels in /wheels and taskd from its wheel in /opt/taskd."""
    wheel = wheels.build(workshop)
    made: dict[Debian, Path] = {}

    def layers(debian: Debian) -> list[Path]:
        if debian not in made:
            top = workshop / debian.suite
            shutil.copytree(wheels.dependencies(), top / "wheels")
            shutil.copy(wheel, top / "wheels")
            make_layer([bare[debian]], top, INSTALL)
            made[debian] = top
        return [made[debian], bare[debian]]

    return layers


@pytest.fixture(params=roots.DEBIANS, ids=str)
def debian(request: pytest.FixtureRequest) -> Debian:
    """Every test runs on each."""
    found: Debian = request.param
    return found


@pytest.fixture
def boot(request: pytest.FixtureRequest) -> Iterator[Callable[[list[Path]], Machine]]:
    """Boots machines, and ends them with the test."""
    machines = request.node.stash[MACHINES] = []

    def booted(layers: list[Path], *arguments: Any) -> Machine:
        machines.append(Machine(layers, f"machine{len(machines)}", *arguments))
        machines[-1].wait_until_booted()
        return machines[-1]

    yield booted
    with ExitStack() as ends:
        for machine in machines:
            ends.callback(machine.end)


@pytest.fixture
def machine(
    boot: Callable[[list[Path]], Machine],
    installed: Callable[[Debian], list[Path]],
    debian: Debian,
) -> Machine:
    """A booted machine with taskd's wheel installed in /opt/taskd, and nothing set up."""
    return boot(installed(debian))
