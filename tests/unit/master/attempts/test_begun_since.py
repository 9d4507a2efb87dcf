"""When an attempt began, as a master after a crash finds it in the attempt's slot."""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

import pytest

from taskd.master.attempts import timeouts
from taskd.master.fleet import Revision, Running, Worker
from taskd.posix import process
from taskd.protocol.saved import Kind
from taskd.slot.writer import SlotWriter

NOW = 1000.0
BEGIN = {"task": 7, "attempt": 2, "name": "work", "version": 1, "at": 0.0, "begun": 900.0}


@pytest.fixture
def slot(tmp_path: Path) -> SlotWriter:
    return SlotWriter.create(str(tmp_path), b"w" * 16, process.identity(), "r1")


def found(slot: SlotWriter, tmp_path: Path, attempt: int = 2) -> float:
    (path,) = tmp_path.iterdir()
    fd = os.open(path, os.O_RDONLY)
    try:
        return timeouts.begun(fd, 7, attempt, NOW)
    finally:
        os.close(fd)


def test_what_is_saved_is_not_read_for_it(
    slot: SlotWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot.append(Kind.BEGIN, BEGIN)
    for n in range(4):
        slot.append(Kind.STEP, {"name": f"step {n}", "value": b"x" * (3 << 20)})
    read: list[int] = []
    pread = os.pread

    def counted(fd: int, size: int, offset: int) -> bytes:
        read.append(len(data := pread(fd, size, offset)))
        return data

    monkeypatch.setattr(os, "pread", counted)
    assert found(slot, tmp_path) == 900.0
    assert sum(read) < 2 << 20


def test_another_attempts_record_and_one_from_the_future_say_nothing(
    slot: SlotWriter, tmp_path: Path
) -> None:
    slot.append(Kind.BEGIN, BEGIN | {"begun": NOW + 1})
    assert found(slot, tmp_path) == NOW
    assert found(slot, tmp_path, attempt=3) == NOW


def test_where_a_snapshot_has_replaced_the_record_it_began_just_now(
    slot: SlotWriter, tmp_path: Path
) -> None:
    slot.append(Kind.BEGIN, BEGIN)
    slot.append(Kind.STEP, {"name": "step", "value": b"x" * (1 << 20)})
    slot.snapshot(b"y" * (1 << 20))
    assert found(slot, tmp_path) == NOW


def test_the_slot_is_not_read_where_the_master_knows(
    slot: SlotWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each start of a task that is watched asks for it."""
    slot.append(Kind.BEGIN, BEGIN)
    (path,) = tmp_path.iterdir()
    worker = Worker(b"w" * 16, cast(Revision, None))
    worker.slot_fd = os.open(path, os.O_RDONLY)
    running = Running(7, "default", "work", 1, "finish", 2)
    try:
        assert timeouts.runs_since(worker, running, NOW) == 900.0
        running.begun = 950.0
        monkeypatch.setattr(timeouts, "begun", None)
        assert timeouts.runs_since(worker, running, NOW) == 950.0
    finally:
        os.close(worker.slot_fd)
