"""The snapshot: what one master hands to the next, whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cbor2
import pytest
from hypothesis import given, strategies as st

from taskd.errors import ProtocolError
from taskd.upgrade import snapshot
from taskd.upgrade.snapshot import Carried, Snapshot

GOLDEN = Path(__file__).parents[2] / "golden" / "snapshot-1.bin"

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False)
    | st.text(max_size=9) | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner,
                                                                max_size=3),
    max_leaves=12,
)  # fmt: skip


def sample() -> bytes:
    """One with something of everything, as the first version writes it."""
    carried = Carried()
    fields = {
        "pid": 4711,
        "ledger": [[5, "listener", "control.sock"], [9, "slot", "slot:ab"]],
        "unread": carried.put(b"\x00\x00\x00\x05half"),
        "nothing": carried.put(b""),
        "unsent": carried.put(b"rest of a reply"),
        "wishes": [1, 15],
        "deploy": {"phase": "adopting", "paused_at": 1234.5},
    }
    return snapshot.encode(fields, carried)


def check(taken: Snapshot) -> None:
    assert taken.fields["ledger"][1] == [9, "slot", "slot:ab"]
    assert taken.fields["deploy"] == {"phase": "adopting", "paused_at": 1234.5}
    assert taken.get(taken.fields["unread"]) == b"\x00\x00\x00\x05half"
    assert taken.get(taken.fields["nothing"]) == b""
    assert taken.get(taken.fields["unsent"]) == b"rest of a reply"


def test_a_snapshot_recorded_by_the_first_version_can_still_be_read() -> None:
    check(snapshot.decode(GOLDEN.read_bytes()))


def test_the_same_state_is_still_written_as_the_first_version_wrote_it() -> None:
    assert sample() == GOLDEN.read_bytes()


@given(st.dictionaries(st.text(max_size=8), PLAIN, max_size=5), st.lists(st.binary(max_size=50)))
def test_fields_and_carried_bytes_come_back(fields: dict[str, Any], parts: list[bytes]) -> None:
    carried = Carried()
    places = [carried.put(part) for part in parts]
    taken = snapshot.decode(snapshot.encode({"fields": fields}, carried))
    assert taken.fields["fields"] == fields
    assert [taken.get(place) for place in places] == parts


def test_it_goes_through_a_sealed_memory_file_whatever_its_offset() -> None:
    fd = snapshot.seal(sample())
    try:
        os.lseek(fd, 7, os.SEEK_SET)
        check(snapshot.read(fd))
        check(snapshot.read(fd))
    finally:
        os.close(fd)


def test_a_sealed_snapshot_cannot_be_changed_and_is_not_inherited() -> None:
    fd = snapshot.seal(sample())
    try:
        assert not os.get_inheritable(fd)
        for change in (
            lambda: os.pwrite(fd, b"x", 0),
            lambda: os.ftruncate(fd, 1),
            lambda: os.ftruncate(fd, 1 << 20),
        ):
            with pytest.raises(PermissionError):
                change()
    finally:
        os.close(fd)


def test_every_truncation_is_noticed() -> None:
    raw = sample()
    carried = len(b"\x00\x00\x00\x05half" + b"rest of a reply")
    for length in range(len(raw)):
        with pytest.raises(ProtocolError, match="damaged"):
            taken = snapshot.decode(raw[:length])
            assert length >= len(raw) - carried
            taken.get(taken.fields["unsent"])


def test_every_wrong_byte_of_the_state_is_noticed() -> None:
    raw = sample()
    end = len(raw) - len(b"\x00\x00\x00\x05half" + b"rest of a reply")
    for place in range(end):
        wrong = bytearray(raw)
        wrong[place] ^= 0x41
        with pytest.raises(ProtocolError):
            snapshot.decode(bytes(wrong))


def test_a_newer_version_is_refused_by_its_number() -> None:
    body = cbor2.loads(sample()[16:])
    newer = snapshot.encode(body | {"version": 2}, Carried())
    with pytest.raises(ProtocolError, match=r"has version 2; this taskd reads \(1,\)"):
        snapshot.decode(newer)


def test_unknown_fields_are_no_error() -> None:
    taken = snapshot.decode(snapshot.encode({"of_tomorrow": [1]}, Carried()))
    assert taken.fields["of_tomorrow"] == [1]
