"""Commits of which it is not known whether they were made: asked, applied again, told once.

With SQLite that is so where the log's sync fails (a sync that fails is made by strace).
"""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from gate import DEADLINE, Gate, cancel, drain
from support.answers import Reading

from taskd import errors
from taskd.store.api import (
    Applied,
    Operation,
    Submitted,
)
from taskd.store.reader import SqliteReader
from taskd.store.sqlite import SqliteStore
from taskd.store.writer import Writer


def test_what_came_of_a_lost_commit_is_asked_and_nothing_is_applied_twice(
    writer: Writer, gate: Gate, notice: int
) -> None:
    gate.loses = 1
    seen: list[Any] = []
    writer.start()
    for number in range(3):
        writer.submit(cancel(number), seen.append)
    drain(writer, notice)
    assert seen == [Applied(number, number) for number in range(3)]
    assert list(chain(*gate.batches)) == [0, 1, 2]
    assert "asked for 1" in gate.log
    assert writer.doubt is None


def test_what_was_lost_before_its_commit_is_applied_again_under_its_number(
    writer: Writer, gate: Gate, notice: int
) -> None:
    gate.error = errors.StoreUnknown("the request was lost")
    seen: list[Any] = []
    writer.submit(cancel(7), seen.append)
    writer.start()
    drain(writer, notice)
    assert (seen, gate.batches, gate.number) == ([Applied(7, 7)], [[7]], 1)


def test_a_store_that_stays_away_is_asked_until_it_answers_and_the_loop_is_told_why(
    writer: Writer, gate: Gate, notice: int
) -> None:
    gate.loses, gate.away = 1, 2
    seen: list[Any] = []
    writer.submit(cancel(1), seen.append)
    writer.submit(cancel(2), seen.append)
    writer.start()
    assert select.select([notice], [], [], DEADLINE)[0]
    assert (writer.completions(), str(writer.doubt)) == (0, "it is away")
    assert not writer.is_idle
    drain(writer, notice)
    assert (seen, gate.batches) == ([Applied(1, 1), Applied(2, 2)], [[1, 2]])
    assert writer.is_idle or writer.flush(DEADLINE)


def test_a_refusal_after_a_lost_try_is_told(writer: Writer, gate: Gate, notice: int) -> None:
    refused = [errors.StoreUnknown("lost"), errors.StoreError("the disk is full")]

    def apply(number: int, operations: Sequence[Operation]) -> list[Applied]:
        raise refused.pop(0)

    gate.apply = apply  # type: ignore[method-assign]
    seen: list[Any] = []
    writer.submit(cancel(1), seen.append)
    writer.start()
    drain(writer, notice)
    assert [str(each) for each in seen] == ["the disk is full"]
    assert (writer.doubt, refused) == (None, [])


def test_a_stop_leaves_a_batch_in_doubt_to_the_next_start(
    writer: Writer, gate: Gate, notice: int
) -> None:
    gate.loses, gate.away = 1, 1_000_000
    seen: list[Any] = []
    writer.submit(cancel(1), seen.append)
    writer.start()
    assert select.select([notice], [], [], DEADLINE)[0]
    writer.submit(cancel(2), seen.append)
    assert not writer.flush(0)
    assert not writer.stop(DEADLINE)
    assert (seen, writer.pending, gate.log[-1], gate.batches) == ([], 2, "close", [[1]])
    assert not writer.flush(DEADLINE), "no thread runs"
    gate.away = 0
    writer.start()
    drain(writer, notice)
    assert seen == [Applied(1, 1), Applied(2, 2)]
    assert gate.batches == [[1], [2]]
    assert writer.stop(DEADLINE)


# Over SQLite

CHILD = """
import os, sys
from taskd import errors
from taskd.store.api import Submit
from taskd.store.queries import QueueCounts
from taskd.store.reader import SqliteReader
from taskd.store.sqlite import SqliteStore

def seen():
    parts = []
    reader.ask(QueueCounts(frozenset(), 0), parts.append)
    return sum(parts[0].found[0].totals.values())

def new(name):
    return Submit(name, 1, "t", 1, b"", "x", "q", 0, None, None, 0, None, 1.0)

path, tries = sys.argv[1], int(sys.argv[2])
store = SqliteStore(path)
reader = SqliteReader(path)
store.apply(1, [new(b"first")])
for _ in range(tries):
    try:
        print("applied", store.apply(2, [new(b"second")])[0].result.task)
    except errors.Error as error:
        print(type(error).__name__, store.last(), store.outcome(2), seen())
sys.stdout.flush()
os.kill(os.getpid(), 9)
"""


def child(path: str, tries: int, failing: str | None) -> tuple[list[str], int]:
    """What the child said that tried the second batch so often, and how many syncs it made;
    ``failing``: which of them, as strace has it."""
    trace = f"{path}.trace"
    inject = [] if failing is None else ["-e", f"inject=fdatasync:error=EIO:when={failing}"]
    strace = ["strace", "-f", "-o", trace, "-e", "trace=fdatasync", *inject]
    words = [sys.executable, "-c", CHILD, path, str(tries)]
    ran = subprocess.run([*strace, *words], capture_output=True, text=True, check=False)
    assert ran.stdout or tries == 0, ran.stderr
    with open(trace, encoding="utf-8") as file:
        return ran.stdout.splitlines(), sum("fdatasync(" in line for line in file)


@pytest.fixture
def syncs(tmp_path: Path) -> int:
    """How many syncs there are before the second batch's."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    return child(os.fspath(tmp_path / "counted.db"), 0, None)[1]


def test_a_commit_whose_sync_failed_is_unknown_and_may_come_to_light(
    tmp_path: Path, syncs: int
) -> None:
    path = os.fspath(tmp_path / "store.db")
    said, _ = child(path, 1, f"{syncs + 1}")
    assert said == ["StoreUnknown 1 None 1"], "whoever has the store open does not see it"
    store, reader = SqliteStore(path), Reading(SqliteReader(path))
    try:
        assert store.last() == 2, "the next process finds it in the log"
        assert store.outcome(2) == [Applied(Submitted(2, True), 2)]
        assert sum(reader.counts().values()) == 2
    finally:
        reader.close()
        store.close()


def test_a_commit_whose_sync_failed_is_made_by_the_next_try(tmp_path: Path, syncs: int) -> None:
    path = os.fspath(tmp_path / "store.db")
    said, _ = child(path, 2, f"{syncs + 1}")
    assert said == ["StoreUnknown 1 None 1", "applied 2"]
    reader = Reading(SqliteReader(path))
    assert sum(reader.counts().values()) == 2
    reader.close()


def test_it_stays_unknown_while_syncs_fail(tmp_path: Path, syncs: int) -> None:
    said, _ = child(os.fspath(tmp_path / "store.db"), 3, f"{syncs + 1}+")
    assert said == ["StoreUnknown 1 None 1"] * 3
