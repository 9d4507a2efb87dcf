"""What a slot occupies: a million cursors in little room, on file systems of every kind."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from slot_samples import BEGIN, END, blocks_of, new_slot, size_of, step

from taskd.posix import files
from taskd.protocol import data
from taskd.protocol.saved import Kind, Mark, Saved, mark_fields
from taskd.slot import reader, writer
from taskd.slot.writer import SlotWriter

MILLION = 1_000_000
ALLOWED = 64 * 1024 * 1024


def cursor(number: int) -> dict[str, Any]:
    """What saving an item of a loop writes: a cursor of three parts, and a state."""
    where = ["2026-11/orders.csv", number * 211, number]
    return {
        "path": "rows",
        "mark": mark_fields(Mark(where, number + 1, MILLION), data.encode(where)),
        "state": data.encode({"bytes": number * 211, "last": "customer", "errors": []}),
    }


def cursors(slot: SlotWriter, count: int) -> tuple[Saved, int]:
    """Save that many items of a loop as a worker does it. What they add up to, and the most that
    the slot occupied (bytes). The last thousand, which are the longest, come again and again."""
    saved, most = Saved(1), 0
    saved.apply(Kind.STEP, {"path": "count", "value": data.encode(count)})
    slot.append(Kind.STEP, {"path": "count", "value": data.encode(count)}, durable=True)
    made = [cursor(number) for number in range(MILLION - 1000, MILLION)]
    for number in range(count):
        fields = made[number % len(made)]
        slot.append(Kind.LOOP, fields)
        if slot.wants_snapshot:
            saved.apply(Kind.LOOP, fields)
            most = max(most, blocks_of(slot))
            slot.snapshot(saved.encode())
    saved.apply(Kind.LOOP, fields)
    return saved, max(most, blocks_of(slot))


def rebuilt(content: reader.Content) -> Saved:
    assert content.snapshot is not None
    saved = Saved.decode(content.snapshot)
    for record in content.records:
        saved.apply(record.kind, record.fields)
    return saved


@pytest.mark.timeout(900)
def test_a_million_cursors_take_at_most_64_megabytes(tmp_path: Path) -> None:
    with new_slot(str(tmp_path)) as slot:
        slot.append(Kind.BEGIN, BEGIN)
        saved, most = cursors(slot, MILLION)
        assert size_of(slot) > ALLOWED, "without giving space back it would be more"
        assert most < ALLOWED
        assert most < 4 * writer.SNAPSHOT_AFTER, "it is far less"
        content = reader.read(slot.fd)
        assert (content.saves, content.begin, content.damage) == (MILLION + 1, BEGIN, None)
        assert rebuilt(content).encode() == saved.encode()


# ── file systems ─────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def mounted(kind: str, path: Path) -> Iterator[str]:
    """A real file system of that kind; the test is skipped where it cannot be made."""
    where = path / "disk"
    where.mkdir()
    made = _loop(kind, path, where) if kind.startswith("ext") else _simple(kind, where)
    if not made:
        pytest.skip(f"no {kind} can be mounted here")
    try:
        yield str(where)
    finally:
        ctypes.CDLL(None).umount2(os.fsencode(where), 2)  # MNT_DETACH


def _simple(kind: str, where: Path) -> bool:
    libc = ctypes.CDLL(None)
    return libc.mount(kind.encode(), os.fsencode(where), kind.encode(), 0, b"") == 0  # type: ignore[no-any-return]


def _loop(kind: str, path: Path, where: Path) -> bool:
    image = path / "image"
    with open(image, "wb") as file:
        file.truncate(64 * 1024 * 1024)
    commands = [[f"mkfs.{kind}", "-q", str(image)], ["mount", "-o", "loop", str(image), str(where)]]
    with contextlib.suppress(FileNotFoundError):
        return all(subprocess.run(c, capture_output=True).returncode == 0 for c in commands)
    return False


KINDS = ["tmpfs", "ramfs", "ext2", "ext4"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_slot_is_the_same_on_every_file_system(tmp_path: Path, kind: str) -> None:
    """tmpfs and ext4 can do all; ext2 cannot reserve room; ramfs can neither do that nor punch."""
    with mounted(kind, tmp_path) as directory, new_slot(directory) as slot:
        slot.append(Kind.BEGIN, BEGIN)
        saved, most = cursors(slot, 40_000)
        if kind != "ramfs":
            assert most < 4 * writer.SNAPSHOT_AFTER < size_of(slot)
        content = reader.read(slot.fd)
        assert (content.saves, content.damage, content.torn) == (40_001, None, False)
        assert rebuilt(content).encode() == saved.encode()
        slot.append_end(END)
        assert reader.read(slot.fd).end == END
        slot.reset()
        slot.append(Kind.BEGIN, {**BEGIN, "attempt": 3})
        assert reader.read(slot.fd).begin == {**BEGIN, "attempt": 3}


def test_where_no_holes_can_be_punched_the_slot_ends_in_a_clear_error(tmp_path: Path) -> None:
    with mounted("ramfs", tmp_path) as directory, new_slot(directory) as slot:
        assert not files.punch(slot.fd, 0, 4096), "ramfs can do it after all"
        slot.append(Kind.BEGIN, BEGIN)
        cursors(slot, 20_000)
        assert not slot.wants_snapshot, "another one would only make the slot larger"
        with (
            mock.patch.object(writer, "LIMIT", size_of(slot)),
            pytest.raises(writer.SlotTooLarge, match="punch holes"),
        ):
            slot.append(Kind.STEP, step(5000))
        slot.append_end(END)
        content = reader.read(slot.fd)
        assert (content.saves, content.end, content.damage) == (20_001, END, None)
