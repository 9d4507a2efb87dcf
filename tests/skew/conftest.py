"""Fixtures: a Python for each version, made once, and daemons that start with one of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pythons import NEW, NEXT, OLD, Python
from skewed import Skewed


@pytest.fixture(scope="session")
def pythons(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Python]:
    """By version; nobody changes these."""
    root = tmp_path_factory.mktemp("pythons")
    return {each: Python(root / each).make().install(each) for each in (OLD, NEW, NEXT)}


@pytest.fixture(scope="session")
def old(pythons: dict[str, Python]) -> Python:
    return pythons[OLD]


@pytest.fixture(scope="session")
def new(pythons: dict[str, Python]) -> Python:
    return pythons[NEW]


@pytest.fixture(scope="session")
def following(pythons: dict[str, Python]) -> Python:
    return pythons[NEXT]


@pytest.fixture
def replaceable(tmp_path: Path) -> Python:
    """One that this test alone has, with the old version; its taskd may be replaced."""
    return Python(tmp_path / "venv").make().install(OLD)


@pytest.fixture
def skewed(new_daemon: Callable[..., Skewed]) -> Callable[..., Skewed]:
    """``skewed(python, **sections)``: a daemon that this Python starts."""

    def make(python: Python, **sections: Any) -> Skewed:
        return new_daemon(python, kind=Skewed, **sections)

    return make
