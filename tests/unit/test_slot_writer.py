"""Writing slots: full disks, short writes, snapshots that give space back, and what it costs."""

from __future__ import annotations

import errno
import os
import resource
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from slot_samples import BEGIN, WORKER, in_child, new_slot, small_disk

from taskd.posix import files, process
from taskd.posix.process import Identity
from taskd.protocol.saved import Kind
from taskd.slot import layout, reader, writer
from taskd.slot.writer import SlotWriter

END = {"task": 7, "attempt": 2, "outcome": "left", "progressed": True}


def step(size: int) -> dict[str, Any]:
    return {"path": "rows/parse", "value": b"v" * size}


def fill(slot: SlotWriter, size: int = 300) -> int:
    """Append steps until there is no room; returns how many were written."""
    for count in range(100_000):
        try:
            slot.append(Kind.STEP, step(size))
        except layout.SlotFull:
            return count
    raise AssertionError("the disk never got full")


def size_of(slot: SlotWriter) -> int:
    return os.fstat(slot.fd).st_size


def blocks_of(slot: SlotWriter) -> int:
    return os.fstat(slot.fd).st_blocks * 512


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
    before = os.listdir("/proc/self/fd")
    no_rename = mock.patch("os.rename", side_effect=OSError(errno.EIO, "Input/output error"))
    with no_rename, pytest.raises(OSError, match="Input/output"):
        SlotWriter.create(str(tmp_path), WORKER, process.identity(), "r1")
    assert os.listdir(tmp_path) == []
    assert os.listdir("/proc/self/fd") == before


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


def test_the_format_is_still_written_as_recorded(tmp_path: Path) -> None:
    who = Identity(4242, 987654, "6f1d2f6e-8f0e-4d4f-a9a8-0f54c2ad2f11")
    slot = SlotWriter.create(str(tmp_path), WORKER, who, "r41")
    try:
        slot.append(Kind.BEGIN, BEGIN)
        slot.append(Kind.STEP, {"path": "count", "value": b"\x0a"})
        slot.append(Kind.LOOP, {"path": "rows", "mark": [b"\x18\x29", 41]}, durable=True)
        slot.append(Kind.PROGRESS, {"done": 41, "total": None, "note": ""})
        slot.snapshot(b"the saved state")
        slot.append(Kind.LOOP, {"path": "rows", "mark": [b"\x18\x2a", 42]})
        slot.append(Kind.PROGRESS, {"done": 42, "total": None, "note": "half"})
        slot.append_end(END)
        golden = Path(__file__).parent.parent / "golden" / "slot-1.slot"
        assert os.pread(slot.fd, 10**6, 0) == golden.read_bytes()
    finally:
        os.close(slot.fd)


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
        assert calls == {"pwrite": 1000}
        assert reserved <= 1 + size_of(slot) // writer.CHUNK
        slot.append(Kind.STEP, step(1), durable=True)
        assert calls["fdatasync"] == 1


# ── no room ──────────────────────────────────────────────────────────────────────────────────


def use_up_and_end(slot: SlotWriter, use_up_the_rest: Callable[[], None]) -> None:
    """On a disk that gets full: nothing is lost, nothing is half, and END still goes in."""
    slot.append(Kind.BEGIN, BEGIN)
    count = fill(slot)
    use_up_the_rest()
    whole = size_of(slot)
    with pytest.raises(layout.SlotFull, match="no room"):
        slot.append(Kind.STEP, step(300))
    with pytest.raises(layout.SlotFull):
        slot.append_end({**END, "result": b"r" * 100_000})
    content = reader.read(slot.fd)
    assert (content.size, content.saves, content.torn) == (whole, count, False)
    ending = {**END, "result": b"r" * 3900}
    offset = slot.append_end(ending)
    assert offset == whole
    content = reader.read(slot.fd)
    assert (content.end, content.saves, content.damage) == (ending, count, None)


def and_go_on(slot: SlotWriter) -> None:
    """There is room again: so is everything else."""
    slot.reset()
    slot.append(Kind.BEGIN, {**BEGIN, "attempt": 3})
    slot.append(Kind.STEP, step(20_000), durable=True)
    slot.append_end({**END, "result": b"r" * 1_000})
    content = reader.read(slot.fd)
    assert content.begin == {**BEGIN, "attempt": 3}
    assert content.saves == 1
    assert content.end is not None


def test_a_full_disk_loses_nothing_and_takes_the_end(tmp_path: Path) -> None:
    """A real file system of 256 KiB. Where mounting is not permitted, a size limit stands in."""
    with small_disk(str(tmp_path), "256k") as mounted:
        if not mounted:
            in_child(lambda: full_by_limit(str(tmp_path)))
            return
        with new_slot(str(tmp_path)) as slot:
            use_up_and_end(slot, lambda: use_up(tmp_path / "other"))
            (tmp_path / "other").unlink()
            and_go_on(slot)


def use_up(path: Path) -> None:
    """Take every byte that is left on that disk."""
    with open(path, "wb", buffering=0) as file:
        while True:
            try:
                file.write(b"x" * 512)
            except OSError as error:
                assert error.errno == errno.ENOSPC
                return


def test_a_size_limit_loses_nothing_and_takes_the_end(tmp_path: Path) -> None:
    in_child(lambda: full_by_limit(str(tmp_path)))


def full_by_limit(directory: str) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
    with new_slot(directory, b"under size limit") as slot:
        use_up_and_end(slot, lambda: None)
        and_go_on(slot)


def test_a_full_disk_refuses_a_new_slot_and_keeps_nothing_of_it(tmp_path: Path) -> None:
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, resource.RLIM_INFINITY))
        with pytest.raises(layout.SlotFull):
            SlotWriter.create(str(tmp_path), WORKER, process.identity(), "r1")

    in_child(limited)
    assert os.listdir(tmp_path) == []


def test_an_attempt_that_waits_for_room_goes_on_where_it_was(tmp_path: Path) -> None:
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        with new_slot(str(tmp_path)) as slot:
            slot.append(Kind.BEGIN, BEGIN)
            first = fill(slot)
            assert fill(slot) == 0
            resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, resource.RLIM_INFINITY))
            second = fill(slot)
            assert second > 0
            slot.append_end(END)
            content = reader.read(slot.fd)
            assert (content.saves, content.damage) == (first + second, None)

    in_child(limited)


def test_a_short_write_is_truncated_back(tmp_path: Path) -> None:
    """A real one: the limit falls into the middle of a record, in room that was reserved."""

    def limited() -> None:
        with new_slot(str(tmp_path)) as slot:
            slot.append(Kind.BEGIN, BEGIN)
            slot.append(Kind.STEP, step(300))
            whole = size_of(slot)
            limit = whole + 100
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            with pytest.raises(layout.SlotFull, match="100 of 3"):
                slot.append(Kind.STEP, step(300))
            assert size_of(slot) == whole
            with pytest.raises(layout.SlotFull):
                slot.append(Kind.STEP, step(300))
            assert size_of(slot) == whole
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
            assert slot.append(Kind.STEP, step(2)) == whole
            content = reader.read(slot.fd)
            assert [len(record.fields["value"]) for record in content.records] == [300, 2]
            assert blocks_of(slot) >= size_of(slot) + writer.END_ROOM

    in_child(limited)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_a_write_that_fails_after_some_bytes_is_truncated_back(tmp_path: Path, number: int) -> None:
    real = os.pwrite

    def half(fd: int, data: bytes, offset: int) -> int:
        real(fd, data[: len(data) // 2], offset)
        raise OSError(number, os.strerror(number))

    with new_slot(str(tmp_path)) as slot:
        slot.append(Kind.BEGIN, BEGIN)
        whole = size_of(slot)
        expected = OSError if number == errno.EIO else layout.SlotFull
        with mock.patch("os.pwrite", half), pytest.raises(expected):
            slot.append(Kind.STEP, step(300))
        assert size_of(slot) == whole
        assert slot.append(Kind.STEP, step(300)) == whole
        assert reader.read(slot.fd).damage is None


def test_an_exception_in_the_middle_of_a_write_is_cleared_up_by_the_next(tmp_path: Path) -> None:
    """A signal handler of user code may raise between the write and what follows it."""
    real = os.pwrite

    def whole_and_raise(fd: int, data: bytes, offset: int) -> int:
        real(fd, data, offset)
        raise KeyboardInterrupt

    with new_slot(str(tmp_path)) as slot:
        slot.append(Kind.BEGIN, BEGIN)
        whole = size_of(slot)
        with mock.patch("os.pwrite", whole_and_raise), pytest.raises(KeyboardInterrupt):
            slot.append(Kind.STEP, step(300))
        assert slot.append(Kind.STEP, step(2)) == whole
        content = reader.read(slot.fd)
        assert [record.fields["value"] for record in content.records] == [b"vv"]
        assert (content.torn, content.damage) == (False, None)


def test_room_for_the_end_stays_allocated_behind_every_record(tmp_path: Path) -> None:
    with new_slot(str(tmp_path)) as slot:
        for size in (1, 5_000, 70_000, 200, 1_000_000, 3):
            slot.append(Kind.STEP, step(size))
            assert blocks_of(slot) >= size_of(slot) + writer.END_ROOM
        slot.reset()
        assert size_of(slot) == layout.BLOCK
        assert blocks_of(slot) >= layout.BLOCK + writer.END_ROOM


def test_a_file_system_that_cannot_reserve_is_written_all_the_same(tmp_path: Path) -> None:
    with mock.patch("taskd.posix.files.reserve", return_value=False), new_slot(str(tmp_path)) as s:
        s.append(Kind.BEGIN, BEGIN)
        s.append(Kind.STEP, step(200_000))
        s.append_end(END)
        assert reader.read(s.fd).saves == 1


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


def test_a_million_cursors_stay_within_a_few_megabytes(tmp_path: Path) -> None:
    """200,000 of them write 10 MB; what they occupy is bounded by the snapshots, not by them."""
    most = 0
    with new_slot(str(tmp_path)) as slot:
        slot.append(Kind.BEGIN, BEGIN)
        for number in range(200_000):
            slot.append(Kind.LOOP, {"path": "rows", "mark": [number.to_bytes(8, "big"), number]})
            if slot.wants_snapshot:
                most = max(most, blocks_of(slot))
                slot.snapshot(number.to_bytes(8, "big") * 40)
        assert size_of(slot) > 7_000_000
        assert most < 2 * writer.SNAPSHOT_AFTER
        content = reader.read(slot.fd)
        assert content.saves == 200_000
        assert content.records[-1].fields["mark"][1] == 199_999
        assert len(content.records) < 100_000


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
