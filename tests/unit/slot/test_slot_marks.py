"""Marks in a slot: they say what had been synced, so that a power cut is told from damage."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from slot_samples import BEGIN, END, WORKER, in_child, memory_file, new_slot, size_of, step

from taskd.posix.process import Identity
from taskd.protocol.saved import Kind
from taskd.slot import layout, reader, writer
from taskd.slot.writer import SlotWriter

GOLDEN = Path(__file__).parents[2] / "golden"


def kinds(slot: SlotWriter) -> list[int]:
    """The kinds of all its records, in order."""
    raw, at, found = os.pread(slot.fd, 1 << 20, 0), layout.BLOCK, []
    while at < len(raw):
        length, _ = layout.FRAME.unpack(raw[at : at + layout.FRAME_SIZE])
        found.append(raw[at + layout.FRAME_SIZE + 1])
        at += layout.FRAME_SIZE + length
    return found


def test_the_first_record_after_a_sync_says_so_and_no_other(tmp_path: Path) -> None:
    with new_slot(str(tmp_path)) as slot:
        slot.append(Kind.BEGIN, BEGIN)
        slot.append(Kind.STEP, step(3), durable=True)
        slot.append(Kind.LOOP, {})
        slot.append(Kind.LOOP, {})
        slot.sync()
        slot.sync()
        slot.append_end(END)
        pad = Kind.PAD
        assert kinds(slot) == [Kind.BEGIN, Kind.STEP, pad, Kind.LOOP, Kind.LOOP, pad, Kind.END]
        content = reader.read(slot.fd)
        assert (content.saves, content.end, content.damage) == (3, END, None)


def test_a_sync_of_what_was_reset_meanwhile_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control thread syncs while the main thread goes on to the next attempt."""
    with new_slot(str(tmp_path)) as slot:
        slot.append(Kind.BEGIN, BEGIN)
        slot.append(Kind.STEP, step(3000))
        monkeypatch.setattr("os.fdatasync", lambda _: slot.reset())
        slot.sync()
        monkeypatch.undo()
        slot.append(Kind.BEGIN, BEGIN)
        slot.append(Kind.STEP, step(3))
        assert kinds(slot) == [Kind.BEGIN, Kind.STEP]


def test_the_room_that_is_kept_for_the_end_is_the_ends_alone(tmp_path: Path) -> None:
    def limited() -> None:
        with new_slot(str(tmp_path)) as slot:
            slot.append(Kind.BEGIN, BEGIN)
            slot.append(Kind.STEP, step(3), durable=True)
            ending = {**END, "result": b""}
            spare = writer.END_ROOM - layout.FRAME_SIZE - len(layout.encode_body(Kind.END, ending))
            ending["result"] = b"r" * (spare - 2)  # CBOR: two more bytes for a length like that
            limit = size_of(slot) + writer.END_ROOM
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            slot.append_end(ending)
            assert size_of(slot) == limit
            assert reader.read(slot.fd).end == ending

    in_child(limited)


def broken(slot: SlotWriter, at: int, size: int) -> reader.Content:
    """The slot with zeros in ``size`` bytes from ``at`` on."""
    raw = bytearray(os.pread(slot.fd, 1 << 20, 0))
    raw[at : at + size] = bytes(size)
    fd = memory_file(bytes(raw))
    try:
        return reader.read(fd)
    finally:
        os.close(fd)


def test_a_gap_in_what_was_not_synced_is_told_from_one_in_what_was(tmp_path: Path) -> None:
    with new_slot(str(tmp_path)) as slot:
        slot.append(Kind.BEGIN, BEGIN)
        first = slot.append(Kind.STEP, step(600), durable=True)
        second = slot.append(Kind.LOOP, {"path": "a" * 600})
        third = slot.append(Kind.LOOP, {"path": "b" * 600})
        slot.append(Kind.LOOP, {"path": "c"})
        lost = broken(slot, second, 512)
        assert lost.damage is not None and not lost.was_synced
        assert [record.offset for record in lost.records] == [first], "what stands before counts"
        lost = broken(slot, third, 512)
        assert lost.damage is not None and not lost.was_synced
        for place in (layout.BLOCK, first, first + 300):
            lost = broken(slot, place, 8)
            assert lost.damage is not None and lost.was_synced
        assert not reader.read(slot.fd).was_synced


def test_a_lost_snapshot_is_known_to_have_been_synced(tmp_path: Path) -> None:
    with new_slot(str(tmp_path)) as slot:
        slot.append(Kind.BEGIN, BEGIN)
        slot.append(Kind.STEP, step(6000))
        snapshot = slot.snapshot(b"state" * 200)
        slot.append(Kind.LOOP, {"path": "a"})
        lost = broken(slot, snapshot + 20, 8)
        assert lost.damage is not None and lost.was_synced


def golden(path: Path) -> SlotWriter:
    who = Identity(4242, 987654, "6f1d2f6e-8f0e-4d4f-a9a8-0f54c2ad2f11")
    slot = SlotWriter.create(str(path), WORKER, who, "r41")
    slot.append(Kind.BEGIN, BEGIN)
    slot.append(Kind.STEP, {"path": "count", "value": b"\x0a"})
    slot.append(Kind.LOOP, {"path": "rows", "mark": [b"\x18\x29", 41]}, durable=True)
    slot.append(Kind.PROGRESS, {"done": 41, "total": None, "note": ""})
    slot.snapshot(b"the saved state")
    slot.append(Kind.LOOP, {"path": "rows", "mark": [b"\x18\x2a", 42]})
    slot.append(Kind.PROGRESS, {"done": 42, "total": None, "note": "half"})
    slot.append_end(END)
    return slot


def test_the_format_is_still_written_as_recorded(tmp_path: Path) -> None:
    slot = golden(tmp_path)
    try:
        assert os.pread(slot.fd, 10**6, 0) == (GOLDEN / "slot-1.slot").read_bytes()
    finally:
        os.close(slot.fd)


_READ = """
import sys, taskd
from taskd.slot import reader
with open(sys.argv[1], "rb") as file:
    found = reader.read(file.fileno())
print([taskd.__version__, found.snapshot, len(found.records), found.saves, found.end, found.damage])
"""


def test_a_slot_reads_the_same_in_the_version_before(tmp_path: Path) -> None:
    wheel = GOLDEN / "taskd_supervisor-0.2.0-py3-none-any.whl"
    os.close(golden(tmp_path).fd)
    (slot,) = (str(path) for path in tmp_path.iterdir())
    told = subprocess.run(
        [sys.executable, "-P", "-c", _READ, slot],
        env={**os.environ, "PYTHONPATH": str(wheel)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert told == f"{['0.2.0', b'the saved state', 1, 3, END, None]}\n"
