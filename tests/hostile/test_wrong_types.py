"""Records whose bytes are whole and whose fields are not: found by fuzzing, refused in words."""

from __future__ import annotations

import tempfile
from typing import Any

import pytest

from taskd.errors import ProtocolError
from taskd.protocol import data
from taskd.protocol.records import TEXT_LIMIT, check
from taskd.protocol.saved import Kind, Saved, SavedFromFuture
from taskd.slot import layout, reader

HEADER = layout.encode_header(layout.Header(bytes(16), 1, 2, "boot", "r1"))

SNAPSHOT: dict[str, Any] = {"saved": b"", "begin": {}, "saves": 1, "progress": None}


def read(kind: Kind, fields: dict[str, Any]) -> reader.Content:
    """A slot with that one record, whose checksum is right."""
    record = layout.frame(layout.seed(bytes(16)), layout.BLOCK, layout.encode_body(kind, fields))
    with tempfile.TemporaryFile() as file:
        file.write(HEADER + record)
        file.flush()
        return reader.read(file.fileno())


@pytest.mark.parametrize(
    "wrong",
    [{"saves": "many"}, {"begin": None}, {"begin": [1]}, {"saved": None}, {"progress": 1}],
)
def test_a_snapshot_with_a_field_of_a_wrong_type_is_damage(wrong: dict[str, Any]) -> None:
    assert read(Kind.SNAPSHOT, SNAPSHOT).saves == 1
    with pytest.raises(layout.SlotDamaged, match="snapshot at byte 4096 lacks a field, or has"):
        read(Kind.SNAPSHOT, SNAPSHOT | wrong)


CURSOR = data.encode(1)
MARK = {"cursor": CURSOR, "done": 1, "total": 2, "length": 3, "fingerprint": b"f", "moved": True}


@pytest.mark.parametrize(
    "wrong",
    [
        {"done": "1"},
        {"done": None},
        {"done": True},
        {"total": 1.5},
        {"length": b""},
        {"fingerprint": "f"},
        {"finished": -18},
        {"moved": None},
        {"cursor": 1},
    ],
)
def test_so_is_a_loop_s_mark_in_a_record_and_in_a_whole_state(wrong: dict[str, Any]) -> None:
    Saved(1).apply(Kind.LOOP, {"path": "rows", "mark": MARK})
    with pytest.raises(ProtocolError):
        Saved(1).apply(Kind.LOOP, {"path": "rows", "mark": MARK | wrong})
    with pytest.raises(ProtocolError):
        Saved.decode(state(cursors={"rows": MARK | wrong}))


def state(**fields: Any) -> bytes:
    whole = {"format": 1, "version": 1, "steps": {}, "cursors": {"rows": MARK}}
    return data.encode(whole | {"state": data.encode({})} | fields)


@pytest.mark.parametrize(
    "wrong",
    [
        {"version": "1"},
        {"steps": [1]},
        {"steps": {1: CURSOR}},
        {"cursors": {b"rows": MARK}},
        {"state": data.encode([1])},
        {"args": data.encode("x")},
        {"args": {}},
        {"format": 0},
        {"format": "1"},
    ],
)
def test_so_is_a_whole_state(wrong: dict[str, Any]) -> None:
    assert Saved.decode(state()).cursors["rows"].done == 1
    with pytest.raises(ProtocolError) as caught:
        Saved.decode(state(**wrong))
    assert not isinstance(caught.value, SavedFromFuture)


END: dict[str, Any] = {"task": 1, "attempt": 1, "outcome": "succeeded", "progressed": True}
ERROR = {"type": "E", "message": "", "traceback": ""}


@pytest.mark.parametrize(
    "wrong",
    [
        {"task": None},
        {"progressed": "yes"},
        {"outcome": 5},
        {"outcome": "ascended"},
        {"version": "1"},
        {"version": 1 << 63},
        {"result": 5},
        {"reason": 7},
        {"error": 5},
        {"error": {"type": "E"}},
        {"outcome": "sleeping"},
        {"outcome": "sleeping", "wake": "soon"},
        {"outcome": "sleeping", "wake": float("nan")},
        {"snapshot": b""},
        {"result": bytes(data.RESULT_LIMIT + 1)},
        {"reason": "ä" * TEXT_LIMIT},
        {"error": ERROR | {"traceback": "x" * (TEXT_LIMIT + 1)}},
    ],
)
def test_so_is_an_end(wrong: dict[str, Any]) -> None:
    more = {"version": 1, "result": b"", "reason": "", "error": ERROR, "wake": 1.5, "snapshot": 1}
    check(Kind.END, END)
    check(Kind.END, END | more)
    check(Kind.END, END | {"result": bytes(data.RESULT_LIMIT), "reason": "x" * TEXT_LIMIT})
    with pytest.raises(ProtocolError):
        check(Kind.END, END | wrong)
