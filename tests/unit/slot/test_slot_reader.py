"""Reading slots: cut off anywhere, damaged anywhere, full of bytes that look like records."""

from __future__ import annotations

import itertools
import os
import random
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import cbor2
import pytest
from hypothesis import given, settings, strategies as st
from slot_samples import BEGIN, WORKER, Child, Model, memory_file, moves, new_slot, play, told

from taskd.posix import process
from taskd.protocol.saved import Kind
from taskd.slot import layout, reader
from taskd.slot.layout import BLOCK
from taskd.slot.writer import SlotWriter


def written(made: list[tuple[Kind, bytes]], end: bool) -> tuple[bytes, Model]:
    """A slot file's bytes after those moves, and what must be read from it."""
    with tempfile.TemporaryDirectory() as directory, new_slot(directory) as slot:
        model = play(slot, made, end)
        return os.pread(slot.fd, 10**8, 0), model


def read(data: bytes) -> reader.Content:
    fd = memory_file(data)
    try:
        return reader.read(fd)
    finally:
        os.close(fd)


def last_before(model: Model, size: int) -> tuple[int, dict[str, Any]]:
    """Where the last record that is whole within ``size`` bytes ends, and what stands there."""
    ends = [end for end in model.after if end <= size]
    return (max(ends), model.after[max(ends)]) if ends else (BLOCK, Model().now)


@settings(max_examples=60, deadline=None)
@given(moves, st.booleans(), st.data())
def test_any_prefix_reads_back_to_exactly_the_last_whole_record(
    made: list[tuple[Kind, bytes]], end: bool, data: st.DataObject
) -> None:
    raw, model = written(made, end)
    drawn = data.draw(st.lists(st.integers(BLOCK, len(raw)), max_size=30))
    edges = {min(end + by, len(raw)) for end in model.after for by in (-1, 0, 1)}
    for size in sorted({*drawn, *edges}):
        content = read(raw[:size])
        if size < model.holes_end:
            # No crash leaves this: the hole was made when its snapshot was whole and on disk.
            assert told(content) == Model().now
            assert content.damage or not any(raw[BLOCK:size])
            continue
        whole, expected = last_before(model, size)
        assert told(content) == expected
        assert content.damage is None
        # a pad that is whole is a whole record too, though it says nothing
        assert whole <= content.size <= size
        assert content.torn == (content.size < size)


def test_every_single_prefix_of_a_slot_reads_back_to_the_last_whole_record() -> None:
    made = [(Kind.STEP, b"one"), (Kind.PROGRESS, b""), (Kind.LOOP, b"two")]
    raw, model = written(made, end=True)
    for size in range(BLOCK, len(raw) + 1):
        content = read(raw[:size])
        whole, expected = last_before(model, size)
        assert told(content) == expected
        assert (content.size, content.torn, content.damage) == (whole, whole < size, None)


@pytest.mark.parametrize("size", [0, 1, 9, 4095])
def test_a_cut_off_header_is_no_slot(size: int) -> None:
    raw, _ = written([], end=False)
    with pytest.raises(layout.SlotDamaged, match="not a slot"):
        read(raw[:size])


@pytest.mark.parametrize("tail", [1, 7, 8, 4096, 70000])
def test_trailing_zeros_are_a_torn_tail(tail: int) -> None:
    raw, model = written([(Kind.STEP, b"x")], end=False)
    content = read(raw + bytes(tail))
    assert told(content) == model.now
    assert (content.size, content.torn, content.damage) == (len(raw), True, None)


def test_every_single_byte_of_the_header_is_guarded() -> None:
    raw, _ = written([], end=False)
    for at in range(BLOCK):
        broken = bytearray(raw)
        broken[at] ^= 0x40
        with pytest.raises(layout.SlotDamaged):
            read(bytes(broken))


@settings(max_examples=40, deadline=None)
@given(moves, st.booleans(), st.randoms(use_true_random=False))
def test_every_single_byte_corruption_of_a_record_is_detected(
    made: list[tuple[Kind, bytes]], end: bool, rng: random.Random
) -> None:
    """In the last one too: a write cut short by a crash leaves the beginning of a record alone.
    Before a punched snapshot there is only a hole, whose bytes are past whatever they are.
    """
    raw, model = written(made, end)
    first = _first_live(raw)
    places = range(first, len(raw))
    for at in rng.sample(places, min(len(places), 60)):
        broken = bytearray(raw)
        broken[at] ^= rng.randrange(1, 256)
        content = read(bytes(broken))
        assert content.damage is not None
        assert content.size <= at
        assert told(content) == last_before(model, content.size)[1]


def _first_live(raw: bytes) -> int:
    """Where the first record behind the hole begins."""
    return next((at for at in range(BLOCK, len(raw), BLOCK) if any(raw[at : at + 8])), BLOCK)


def _starts(raw: bytes, at: int) -> list[int]:
    found = []
    while at < len(raw):
        found.append(at)
        at += 8 + int.from_bytes(raw[at : at + 4], "big")
    return found


def test_damage_says_where_and_what_was_found() -> None:
    raw, model = written([(Kind.STEP, b"one"), (Kind.STEP, b"two"), (Kind.STEP, b"three")], True)
    starts = _starts(raw, BLOCK)
    broken = bytearray(raw)
    broken[starts[2] + 12] ^= 1
    content = read(bytes(broken))
    assert content.damage is not None
    assert f"record at byte {starts[2]} " in content.damage
    assert f"at byte {starts[3]}" in content.damage
    assert WORKER.hex() in content.damage
    assert told(content) == model.after[starts[2]]


@pytest.mark.parametrize("piece", range(20, 60))
def test_a_record_behind_damage_is_found_wherever_the_pieces_end(piece: int) -> None:
    raw, _ = written([(Kind.STEP, b"")], end=True)
    broken = raw[:-8].replace(b"import", b"export")  # BEGIN is broken and END cut off
    with mock.patch("taskd.slot.reader._PIECE", piece):
        content = read(broken)
    assert content.damage is not None


def test_a_length_that_points_past_the_end_is_damage_when_records_follow() -> None:
    raw, _ = written([(Kind.STEP, b"one"), (Kind.STEP, b"two")], end=True)
    broken = bytearray(raw)
    broken[BLOCK : BLOCK + 4] = (30_000_000).to_bytes(4, "big")
    content = read(bytes(broken))
    assert content.damage is not None
    assert content.begin is None


def test_user_bytes_that_imitate_records_are_not_taken_for_records(tmp_path: Path) -> None:
    """The strongest imitation: the slot's own real records, copied into a field."""
    with new_slot(str(tmp_path)) as slot:
        slot.append(Kind.BEGIN, BEGIN)
        slot.append(Kind.STEP, {"path": "publish", "value": b"v" * 20})
        slot.append_end({"task": 7, "attempt": 2, "outcome": "succeeded"})
        real = os.pread(slot.fd, 10**6, BLOCK)
        slot.append(Kind.STEP, {"path": "copy", "value": real * 50})
        raw = os.pread(slot.fd, 10**6, 0)
        start = _starts(raw, BLOCK)[-1]
    for size in range(start + 1, len(raw), 97):
        content = read(raw[:size])
        assert content.torn and content.damage is None
        assert [record.fields["path"] for record in content.records] == ["publish"]
    whole = read(raw)
    assert [record.fields["path"] for record in whole.records] == ["publish", "copy"]


def test_a_record_of_another_slot_is_not_taken_for_one_of_this(tmp_path: Path) -> None:
    with new_slot(str(tmp_path)) as one, new_slot(str(tmp_path), b"another worker!!") as other:
        one.append(Kind.BEGIN, BEGIN)
        other.append(Kind.BEGIN, BEGIN)
        mixed = os.pread(one.fd, BLOCK, 0) + os.pread(other.fd, 10**6, BLOCK)
    content = read(mixed)
    assert content.begin is None
    assert content.damage is not None


def test_a_search_among_bytes_made_to_look_like_records_ends() -> None:
    """A tail of nothing but beginnings of large records is not searched for ever."""
    beginning = (layout.BODY_LIMIT).to_bytes(4, "big") + b"crc!" + b"\x82\x01\xa0" + b"\0" * 5
    size = layout.BODY_LIMIT + 2**20
    raw, _ = written([], end=False)
    content = read(raw + (beginning * (size // len(beginning))))
    assert content.damage is not None
    assert "last try" in content.damage


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_half_made_hole_before_a_snapshot_is_accepted(data: st.DataObject) -> None:
    """A crash while the space was given back: any blocks before the snapshot may be zeros."""
    raw, model, snapshot = _unpunched()
    units = range(BLOCK, snapshot, 512)
    broken = bytearray(raw)
    for at in data.draw(st.lists(st.sampled_from(units), unique=True)):
        broken[at : at + 512] = bytes(512)
    content = read(bytes(broken))
    assert told(content) == model.now
    assert (content.size, content.torn, content.damage) == (len(raw), False, None)


def test_a_wrong_byte_before_a_snapshot_is_damage_and_no_hole() -> None:
    raw, _, snapshot = _unpunched()
    for at in range(BLOCK, snapshot, 83):
        broken = bytearray(raw)
        broken[at] ^= 1
        assert read(bytes(broken)).damage is not None


def _unpunched() -> tuple[bytes, Model, int]:
    """A slot with a snapshot and, before it, everything still there."""
    random_bytes = random.Random(1)
    before: list[tuple[Kind, bytes]] = [
        (Kind.STEP, bytes(random_bytes.randrange(1, 256) for _ in range(600))) for _ in range(12)
    ]
    cannot_punch = mock.patch("taskd.posix.files.punch", return_value=False)
    with cannot_punch, tempfile.TemporaryDirectory() as directory, new_slot(directory) as slot:
        model = play(slot, [*before, (Kind.SNAPSHOT, b"all of it"), (Kind.STEP, b"after")], False)
        raw = os.pread(slot.fd, 10**8, 0)
    starts = _starts(raw, BLOCK)
    snapshot = next(at for at in starts if raw[at + 9] == Kind.SNAPSHOT)
    assert snapshot % BLOCK == 0
    return raw, model, snapshot


def test_zeros_with_no_snapshot_behind_are_damage_not_a_hole() -> None:
    raw, _ = written([(Kind.STEP, b"s" * 40)] * 100, end=True)
    broken = bytearray(raw)
    broken[BLOCK + 1024 : BLOCK + 2048] = bytes(1024)
    content = read(bytes(broken))
    assert content.damage is not None
    assert content.size <= BLOCK + 1024


def test_a_slot_is_read_while_its_owner_writes_and_gives_space_back(tmp_path: Path) -> None:
    """Whenever one looks: a snapshot of item n, and then exactly n+1, n+2, …"""

    numbers = itertools.count(1)
    own: list[SlotWriter] = []

    def create() -> None:
        own.append(SlotWriter.create(str(tmp_path), WORKER, process.identity(), "r1"))
        own[0].append(Kind.BEGIN, BEGIN)
        own[0].snapshot(b"0")

    def write() -> None:
        number = next(numbers)
        own[0].append(Kind.STEP, {"path": "x", "value": number})
        if number % 500 == 0:
            own[0].snapshot(b"%d" % number)

    with Child(create, write) as child:
        fd = os.open(tmp_path / (WORKER.hex() + ".slot"), os.O_RDONLY)
        seen = set()
        while len(seen) < 30:
            assert child.running
            content = reader.read(fd)
            assert content.damage is None
            assert content.begin == BEGIN
            assert content.snapshot is not None
            kept = int(content.snapshot)
            after = [record.fields["value"] for record in content.records]
            assert after == list(range(kept + 1, kept + 1 + len(after)))
            assert content.saves == kept + len(after)
            seen.add(kept)
        os.close(fd)


def test_a_slot_that_gave_space_back_after_one_looked_at_its_size_is_read_again() -> None:
    raw, model = written([(Kind.STEP, b"x" * 30), (Kind.SNAPSHOT, b"all")], end=False)
    before = mock.Mock(st_size=BLOCK + 60)
    real = os.fstat
    answers = iter([before])
    with mock.patch("os.fstat", lambda fd: next(answers, None) or real(fd)):
        content = read(raw)
    assert told(content) == model.now
    assert not content.torn


def test_a_hole_larger_than_memory_is_passed_over() -> None:
    header = layout.Header(WORKER, 1, 2, "boot", "r1")
    far = 2**44
    fields = {"saved": b"state", "begin": BEGIN, "saves": 9, "progress": None}
    body = layout.encode_body(Kind.SNAPSHOT, fields)
    fd = memory_file(layout.encode_header(header))
    try:
        os.pwrite(fd, layout.frame(layout.seed(WORKER), far, body), far)
        content = reader.read(fd)
    finally:
        os.close(fd)
    assert (content.snapshot, content.begin, content.saves) == (b"state", BEGIN, 9)
    assert content.damage is None


def test_a_newer_format_is_told_apart_from_a_broken_slot() -> None:
    raw, _ = written([], end=False)
    block = bytearray(raw[:BLOCK])
    block[8:10] = (2).to_bytes(2, "big")
    block[-4:] = layout.crc32(bytes(block[:-4])).to_bytes(4, "big")
    with pytest.raises(layout.SlotFromFuture, match=r"format 2.*up to 1"):
        read(bytes(block) + b"whatever follows")


def test_no_tag_in_a_record_is_ever_acted_on(tmp_path: Path) -> None:
    with new_slot(str(tmp_path)) as slot:
        slot.append(Kind.STEP, {"path": "x", "value": cbor2.CBORTag(35, "(")})
        with pytest.raises(layout.SlotDamaged, match="tag 35"):
            reader.read(slot.fd)


def test_a_record_is_read_by_its_offset_and_nothing_else(tmp_path: Path) -> None:
    with new_slot(str(tmp_path)) as slot:
        slot.append(Kind.BEGIN, BEGIN)
        offset = slot.append_end({"task": 7, "outcome": "succeeded"})
        header = reader.read_header(slot.fd)
        record = reader.read_record(slot.fd, offset, header)
        assert record == (offset, Kind.END, {"task": 7, "outcome": "succeeded"})
        for wrong in (offset - 1, offset + 1, 10**9):
            with pytest.raises(layout.SlotDamaged, match=str(wrong)):
                reader.read_record(slot.fd, wrong, header)
        assert reader.read(slot.fd).end_offset == offset


def test_the_header_tells_the_owner_and_the_code(tmp_path: Path) -> None:
    with new_slot(str(tmp_path)) as slot:
        header = reader.read_header(slot.fd)
    assert header.worker == WORKER
    assert header.owner.pid == os.getpid()
    assert header.revision == "r1"


def test_records_larger_than_a_piece_are_read(tmp_path: Path) -> None:
    values = [os.urandom(size) for size in (2**20 - 1, 3 * 2**20, 10, 2**20 + 1)]
    with new_slot(str(tmp_path)) as slot:
        slot.append(Kind.BEGIN, BEGIN)
        for value in values:
            slot.append(Kind.STEP, {"path": "x", "value": value})
        content = reader.read(slot.fd)
    assert [record.fields["value"] for record in content.records] == values


def test_the_recorded_slot_of_format_1_reads_as_ever() -> None:
    """As 0.2 writes it, with a mark that says what had been synced."""
    golden = Path(__file__).parents[2] / "golden" / "slot-1.slot"
    content = read(golden.read_bytes())
    boot = "6f1d2f6e-8f0e-4d4f-a9a8-0f54c2ad2f11"
    assert content.header == (WORKER, 4242, 987654, boot, "r41", b"", 0)
    assert told(content) == {
        "begin": BEGIN,
        "snapshot": b"the saved state",
        "records": [(8344, Kind.LOOP, {"path": "rows", "mark": [b"\x18\x2a", 42]})],
        "progress": {"done": 42, "total": None, "note": "half"},
        "end": {"task": 7, "attempt": 2, "outcome": "left", "progressed": True},
        "saves": 3,
    }
    assert (content.torn, content.damage) == (False, None)
    assert content.size == len(golden.read_bytes())
