"""One world for many cells: it is made anew when a test has failed in it."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import pytest
from support.daemon import LOG_SHOWN
from world import World

SPOILT = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    world = getattr(item, "funcargs", {}).get("world")
    if report.failed and world is not None:
        item.stash[SPOILT] = True
        report.sections.append(("log of the world", world.daemon.log()[-LOG_SHOWN:]))
    return report


class Worlds:
    """The one that is in use."""

    def __init__(self) -> None:
        self.current: World | None = None

    def get(self) -> World:
        if self.current is None:
            self.current = World()
        return self.current

    def drop(self) -> None:
        if self.current is not None:
            self.current.daemon.clean_up()
        self.current = None


@pytest.fixture(scope="module")
def worlds(compiled: None) -> Iterator[Worlds]:
    made = Worlds()
    try:
        yield made
        if made.current is not None:
            made.current.end()
    finally:
        made.drop()


@pytest.fixture
def world(worlds: Worlds, request: pytest.FixtureRequest) -> Iterator[World]:
    yield worlds.get()
    if request.node.stash.get(SPOILT, False):
        worlds.drop()
