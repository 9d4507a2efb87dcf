"""Every test of this folder: a poisonous task, and beside it a task that must not suffer."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from support.beside import APP, Beside
from support.daemon import Daemon


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon], request: pytest.FixtureRequest) -> Daemon:
    """Its app is the test module's POISON, on top of what ``Beside`` needs."""
    made = new_daemon(daemon={"cancel_grace": 0.3}, logs={"max_size": "256KiB"})
    for name in ("r1", "r2"):
        made.release(name, APP + request.module.POISON)
    made.point("r1")
    return made.start()


@pytest.fixture
def beside(daemon: Daemon) -> Iterator[Beside]:
    """A task that runs while the test does its worst, and ends as if nothing had been."""
    made = Beside(daemon)
    yield made
    made.all_is_well()
