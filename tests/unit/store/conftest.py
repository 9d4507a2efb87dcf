"""A store with a reader; a writer thread over a store that the test controls."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from gate import DEADLINE, Gate

from taskd.store.reader import SqliteReader
from taskd.store.sqlite import SqliteStore
from taskd.store.writer import Writer


@pytest.fixture
def path(tmp_path: Path) -> str:
    return os.fspath(tmp_path / "a #1 100%? store.db")


@pytest.fixture
def store(path: str) -> Iterator[SqliteStore]:
    made = SqliteStore(path)
    yield made
    made.close()


@pytest.fixture
def reader(store: SqliteStore, path: str) -> Iterator[SqliteReader]:
    made = SqliteReader(path)
    yield made
    made.close()


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
