"""Writing slots: what it costs, its limits, and snapshots that give space back."""

from __future__ import annotations

import errno
import os
import resource
from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from descriptors import descriptors
from slot_samples import BEGIN, END, WORKER, blocks_of, in_child, new_slot, size_of, step

from taskd.posix import files, process
from taskd.protocol.saved import Kind
from taskd.slot import layout, reader, writer
from taskd.slot.writer import SlotWriter

# ── creation ─────────────────────────────────────────────────────────────────────────────────


def test_a_new_slot_is_in_place_locked_private_and_empty(tmp_path: Path) -> None:
    with new_slot(str(tmp_path)) as slot:
        assert os.listdir(tmp_path) == [slot.name] == [WORKER.hex() + ".slot"]
        assert os.stat(tmp_path / slot.name).st_mode & 0o777 == 0o600
        assert not os.get_inheritable(slot.fd)
        content = reader.read(slot.fd)
        assert content.begin is None and content.end is None and content.records == []
        assert (content.size, content.saves, content.torn, content.damage) == (4096, 0, False, None)


def test_a_slot_is_never_written_over_another(tmp_path: Path) -> None:
    with (
        new_slot(str(tmp_path)) as slot,
        pytest.raises(FileExistsError),
        new_slot(str(tmp_path)),
    ):
        pass
    assert os.listdir(tmp_path) == [slot.name]


def test_a_creation_that_fails_leaves_nothing(tmp_path: Path) -> None:
    before = descriptors()
    no_rename = mock.patch("os.rename", side_effect=OSError(errno.EIO, "Input/output error"))
    with no_rename, pytest.raises(OSError, match="Input/output"):
        SlotWriter.create(str(tmp_path), WORKER, process.identity(), "r1")
    assert os.listdir(tmp_path) == []
    assert descriptors() == before


def test_a_revision_name_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(layout.SlotTooLarge, match="shorter name"):
        SlotWriter.create(str(tmp_path), WORKER, process.identity(), "r" * 4000)
    assert os.listdir(tmp_path) == []


def test_removing_takes_the_name_away_and_may_be_repeated(tmp_path: Path) -> None:
    with new_slot(str(tmp_path)) as slot:
        slot.remove()
        assert os.listdir(tmp_path) == []
        slot.remove()
        slot.append(Kind.BEGIN, BEGIN)  # the descriptor stays good


# ── cost ─────────────────────────────────────────────────────────────────────────────────────


def test_one_record_costs_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: Counter[str] = Counter()

    def counted(module: Any, name: str) -> None:
        real = getattr(module, name)

        def call(*args: Any) -> Any:
            calls[name] += 1
            return real(*args)

        monkeypatch.setattr(module, name, call)

    with new_slot(str(tmp_path)) as slot:
        for name in ("pwrite", "write", "fdatasync", "fsync", "ftruncate", "fstat", "lseek"):
            counted(os, name)
        counted(files, "reserve")
        for _ in range(1000):
            slot.append(Kind.LOOP, {"path": "rows", "mark": [b"\x01", 1]})
        reserved = calls.pop("reserve", 0)
        assert calls.pop("fstat") <= 1000 + 2 * reserved, "whether the descriptor is ours still"
        assert calls == {"pwrite": 1000}
        assert reserved <= 1 + size_of(slot) // writer.CHUNK
        slot.append(Kind.STEP, step(1), durable=True)
        assert calls["fdatasync"] == 1


# ── limits ───────────────────────────────────────────────────────────────────────────────────


def test_a_slot_that_cannot_give_space_back_ends_in_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "LIMIT", 300_000)
    monkeypatch.setattr(files, "punch", lambda *_: False)
    with new_slot(str(tmp_path)) as slot:
        slot.append(Kind.BEGIN, BEGIN)
        slot._ask_at = 0
        slot.snapshot(b"x" * 1000)
        slot._ask_at = 0
        assert not slot.wants_snapshot  # it would only make the slot larger
        with pytest.raises(layout.SlotTooLarge, match=r"300000 bytes.*punch holes"):
            for _ in range(1000):
                slot.append(Kind.STEP, step(1000))
        assert size_of(slot) <= layout.BLOCK + 300_000
        slot.append_end({**END, "result": b"r" * 50_000})  # the attempt can end all the same
        assert reader.read(slot.fd).end is not None


def test_what_was_given_back_does_not_count_towards_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "LIMIT", 100_000)
    with new_slot(str(tmp_path)) as slot:
        slot.append(Kind.BEGIN, BEGIN)
        for number in range(1000):
            slot.append(Kind.STEP, step(1000))
            if number % 50 == 0:
                slot.snapshot(b"state")
        assert size_of(slot) > 5 * writer.LIMIT
        assert reader.read(slot.fd).saves == 1000


def test_a_record_above_the_limit_is_refused_and_harms_nothing(tmp_path: Path) -> None:
    with new_slot(str(tmp_path)) as slot:
        with pytest.raises(layout.SlotTooLarge, match="scratch"):
            slot.append(Kind.STEP, step(layout.BODY_LIMIT))
        assert slot.append(Kind.STEP, step(1)) == layout.BLOCK


# ── snapshots and reset ──────────────────────────────────────────────────────────────────────


def test_a_snapshot_gives_space_back_and_reads_as_what_it_replaces(tmp_path: Path) -> None:
    with new_slot(str(tmp_path)) as slot:
        slot.append(Kind.BEGIN, BEGIN)
        for number in range(500):
            slot.append(Kind.STEP, {"path": f"s{number}", "value": b"v" * 2000})
        slot.append(Kind.PROGRESS, {"done": 500, "total": None, "note": ""})
        before = blocks_of(slot)
        offset = slot.snapshot(b"everything")
        assert offset % layout.BLOCK == 0
        assert blocks_of(slot) < before - 500 * 2000 + writer.CHUNK
        slot.append(Kind.STEP, {"path": "later", "value": b""})
        content = reader.read(slot.fd)
        assert content.begin == BEGIN
        assert content.snapshot == b"everything"
        assert [record.fields["path"] for record in content.records] == ["later"]
        assert content.progress == {"done": 500, "total": None, "note": ""}
        assert (content.saves, content.torn, content.damage) == (501, False, None)
        record = reader.read_record(slot.fd, offset, content.header)
        assert record.fields["saved"] == b"everything"


def test_a_snapshot_is_on_disk_before_what_it_replaces_goes(tmp_path: Path) -> None:
    done: list[str] = []
    sync, punch = os.fdatasync, files.punch
    with new_slot(str(tmp_path)) as slot:
        slot.append(Kind.STEP, step(10_000))
        with (
            mock.patch("os.fdatasync", lambda fd: (done.append("sync"), sync(fd))[1]),
            mock.patch(
                "taskd.posix.files.punch", lambda *at: (done.append("punch"), punch(*at))[1]
            ),
        ):
            slot.snapshot(b"state")
    assert done == ["sync", "punch"]


def test_a_snapshot_alone_does_not_count_as_progress(tmp_path: Path) -> None:
    with new_slot(str(tmp_path)) as slot:
        slot.append(Kind.BEGIN, BEGIN)
        slot.append(Kind.PROGRESS, {"done": 1, "total": None, "note": ""})
        slot.snapshot(b"nothing new")
        assert reader.read(slot.fd).saves == 0


def test_every_gap_is_padded_to_a_block(tmp_path: Path) -> None:
    seed = layout.seed(WORKER)
    for offset in range(layout.BLOCK, 2 * layout.BLOCK + 1):
        pad = layout.pad(seed, offset)
        assert (offset + len(pad)) % layout.BLOCK == 0
        assert (pad == b"") == (offset % layout.BLOCK == 0)
        if pad:
            body = pad[layout.FRAME_SIZE :]
            assert layout.frame(seed, offset, body) == pad
            assert layout.decode_body(offset, body).kind == Kind.PAD


def test_a_snapshot_without_room_changes_nothing_and_is_not_asked_for_at_once(
    tmp_path: Path,
) -> None:
    def limited() -> None:
        limit = layout.BLOCK + writer.SNAPSHOT_AFTER + 100_000
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        with new_slot(str(tmp_path)) as slot:
            slot.append(Kind.BEGIN, BEGIN)
            count = 0
            while not slot.wants_snapshot:
                slot.append(Kind.STEP, step(1000))
                count += 1
            with pytest.raises(layout.SlotFull):
                slot.snapshot(b"s" * 200_000)
            assert not slot.wants_snapshot
            content = reader.read(slot.fd)
            assert (content.snapshot, content.saves, content.torn) == (None, count, False)
            slot.append(Kind.STEP, step(1000))

    in_child(limited)


def test_a_large_state_is_not_written_again_and_again(tmp_path: Path) -> None:
    state = b"s" * 2_000_000
    with new_slot(str(tmp_path)) as slot:
        slot.append(Kind.BEGIN, BEGIN)
        written = snapshots = 0
        for _ in range(4000):
            slot.append(Kind.STEP, step(10_000))
            written += 10_000
            if slot.wants_snapshot:
                slot.snapshot(state)
                snapshots += 1
        assert snapshots >= 3
        assert snapshots * len(state) < written / 3


def test_resetting_forgets_the_attempt_and_keeps_the_slot(tmp_path: Path) -> None:
    with new_slot(str(tmp_path)) as slot:
        slot.append(Kind.BEGIN, BEGIN)
        slot.append(Kind.STEP, step(10))
        slot.snapshot(b"state")
        slot.append_end(END)
        slot.reset()
        content = reader.read(slot.fd)
        assert (content.begin, content.snapshot, content.end, content.saves) == (None,) * 3 + (0,)
        assert content.header.worker == WORKER
        assert slot.append(Kind.BEGIN, BEGIN) == layout.BLOCK
        slot.snapshot(b"new")
        content = reader.read(slot.fd)
        assert (content.snapshot, content.saves) == (b"new", 0)
