"""A full disk, for real: a file system of one megabyte."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.answers import Reading

from taskd import errors
from taskd.store.api import (
    Submit,
    Submitted,
)
from taskd.store.queries import Filter
from taskd.store.reader import SqliteReader
from taskd.store.sqlite import SqliteStore

BALLAST = 420_000


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """An empty file system of a little more than 1 MiB."""
    command = ["mount", "-t", "tmpfs", "-o", "size=1100k", "taskd-test", os.fspath(tmp_path)]
    if subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("mounting a small file system is not permitted here")
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", "--lazy", os.fspath(tmp_path)], check=True)


def new(size: int) -> Submit:
    args = os.urandom(size)
    return Submit(os.urandom(16), 1, "t", 1, args, "x", "q", 0, None, None, 0, None, 1.0)


def fill(store: SqliteStore) -> tuple[dict[int, bytes], errors.StoreError]:
    """Submit until the store refuses: what it acknowledged, and how it refused."""
    kept: dict[int, bytes] = {}
    while True:
        batch = [new(5000) for _ in range(3)]
        try:
            applied = store.apply(store.last() + 1, batch)
        except errors.StoreError as error:
            return kept, error
        for submit, outcome in zip(batch, applied, strict=True):
            assert isinstance(outcome.result, Submitted)
            kept[outcome.result.task] = submit.args


def held_by(reader: Reading) -> dict[int, bytes]:
    return {row.id: reader.args(row.id) for row in reader.tasks(Filter(limit=10_000))}


def test_a_full_disk_refuses_loses_nothing_and_is_over_once_there_is_room(small: Path) -> None:
    path = os.fspath(small / "store.db")
    ballast = small / "ballast"
    ballast.write_bytes(bytes(BALLAST))
    store, reader = SqliteStore(path), Reading(SqliteReader(path))
    try:
        kept, error = fill(store)
        assert "the disk is full; free some space" in str(error)
        assert len(kept) > 5
        assert held_by(reader) == kept
        with pytest.raises(errors.StoreError):
            store.apply(store.last() + 1, [new(300_000)])
        ballast.unlink()
        more, _ = fill(store)
        assert len(more) > 5
        assert held_by(reader) == {**kept, **more}
        assert sum(reader.counts().values()) == len(kept) + len(more)
    finally:
        reader.close()
        store.close()
    again = Reading(SqliteReader(path))
    try:
        assert held_by(again) == {**kept, **more}
    finally:
        again.close()


def test_a_store_that_cannot_be_made_says_so(small: Path) -> None:
    path = os.fspath(small / "store.db")
    with open(small / "ballast", "wb", buffering=0) as ballast, pytest.raises(OSError):
        while True:
            ballast.write(bytes(4096))
    with pytest.raises(errors.StoreError, match=r"store\.db failed"):
        SqliteStore(path)
    (small / "ballast").unlink()
    SqliteStore(path).close()
