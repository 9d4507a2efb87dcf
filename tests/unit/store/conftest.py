"""A writer thread over a store that the test controls."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from gate import DEADLINE, Gate

from taskd.store.writer import Writer


@pytest.fixture
def notice() -> Iterator[int]:
    fd = os.eventfd(0, os.EFD_CLOEXEC)
    yield fd
    os.close(fd)


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.go.set()


@pytest.fixture
def writer(gate: Gate, notice: int) -> Iterator[Writer]:
    made = Writer(gate.opened, notice)
    yield made
    gate.go.set()
    made.stop(DEADLINE)
