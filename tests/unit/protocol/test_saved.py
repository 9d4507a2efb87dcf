"""What a task keeps: its two forms, and that the records add up to it."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest
from cbor2 import dumps, loads
from hypothesis import given, strategies as st

from taskd.errors import ProtocolError
from taskd.protocol import data
from taskd.protocol.saved import (
    FORMAT,
    Kind,
    Mark,
    RawSaved,
    Saved,
    SavedFromFuture,
    mark_fields,
    read_mark,
)

GOLDEN = Path(__file__).parents[2] / "golden"


def sample() -> Saved:
    saved = Saved(3)
    saved.args = {"path": "/data/big.csv", "region": "eu"}
    saved.steps = {"count": 1000, "rows/parse": ("a", 1), "day": date(2026, 11, 22)}
    saved.cursors = {
        "rows": Mark(41, 41, 1000),
        "rows/parts": Mark(2, 2, 9, 9, b"12345678"),
        "files": Mark(None, 7, finished=True),
    }
    saved.state = {"bytes": 4096, "seen": {"a"}, "nested": [1.5, None, b"\x00"]}
    return saved


def step(path: str, value: Any, **more: Any) -> dict[str, Any]:
    return {"path": path, "value": data.encode(value)} | more


def loop(path: str, mark: Mark, **more: Any) -> dict[str, Any]:
    return {"path": path, "mark": mark_fields(mark)} | more


def test_what_is_encoded_is_decoded_to_the_same() -> None:
    saved = sample()
    assert Saved.decode(saved.encode()) == saved
    assert Saved.decode(Saved(1).encode()) == Saved(1)


def test_the_recorded_state_of_format_1_is_still_read_and_written() -> None:
    raw = (GOLDEN / "saved-state-1.cbor").read_bytes()
    assert Saved.decode(raw) == sample()
    assert sample().encode() == raw


def test_the_recorded_records_of_format_1_still_add_up() -> None:
    saved = Saved(1)
    for kind, fields in loads((GOLDEN / "saved-records-1.cbor").read_bytes()):
        saved.apply(kind, fields)
    expected = Saved(2)
    expected.steps = {"count": 10, "nap": 1764000000.5}
    expected.cursors = {
        "rows": Mark(3, 3, 10),
        "list": Mark(1, 1, 2, 2, b"abcdefgh"),
        "done": Mark(None, 4, finished=True),
    }
    expected.state = {"sum": 7}
    assert saved == expected


def test_a_newer_format_is_refused_with_what_to_do() -> None:
    fields = data.decode(sample().encode()) | {"format": FORMAT + 1}
    with pytest.raises(SavedFromFuture, match=r"newer taskd \(format 2\)") as refused:
        Saved.decode(data.encode(fields))
    assert isinstance(refused.value, ProtocolError)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff",
        data.encode(5),
        data.encode({}),
        data.encode({"format": "1"}),
        data.encode({"format": 0}),
        data.encode({"format": 1}),
        data.encode({"format": 1, "version": 1, "steps": [], "cursors": {}, "state": b"\xa0"}),
        data.encode({"format": 1, "version": 1, "steps": {"a": 5}, "cursors": {}, "state": b""}),
        data.encode({"format": 1, "version": 1, "steps": {}, "cursors": {"a": {}}, "state": b""}),
    ],
)
def test_bytes_that_are_no_saved_state_are_a_protocol_error(raw: bytes) -> None:
    with pytest.raises(ProtocolError):
        Saved.decode(raw)


def test_unknown_fields_are_ignored() -> None:
    fields = data.decode(sample().encode()) | {"later": 1}
    assert Saved.decode(data.encode(fields)) == sample()
    saved = Saved(1)
    saved.apply(Kind.STEP, step("a", 1, later=2))
    assert saved.steps == {"a": 1}


def test_a_mark_says_only_what_it_needs_to() -> None:
    assert mark_fields(Mark(5, 5)) == {"cursor": data.encode(5), "done": 5}
    full = Mark((1, "a"), 2, 3, 4, b"f" * 8, True)
    assert read_mark(mark_fields(full)) == full


def test_each_kind_of_record_is_added_up() -> None:
    saved = Saved(1)
    saved.apply(Kind.BEGIN, {"task": 1, "attempt": 1, "name": "t", "version": 4, "at": 0.0})
    saved.apply(Kind.STEP, step("count", 3))
    saved.apply(Kind.LOOP, loop("rows", Mark(1, 1), state=data.encode({"a": 1})))
    saved.apply(Kind.PROGRESS, {"done": 1, "total": 2, "note": ""})
    saved.apply(Kind.PAD, {"zero": b""})
    saved.apply(Kind.END, {"task": 1, "attempt": 1, "outcome": "left", "progressed": True})
    assert (saved.version, saved.steps, saved.state) == (4, {"count": 3}, {"a": 1})
    saved.apply(Kind.CHECKPOINT, {"state": data.encode({"a": 2})})
    assert saved.state == {"a": 2}
    assert saved.cursors == {"rows": Mark(1, 1)}


def test_a_begin_does_not_make_old_state_look_like_new() -> None:
    saved = sample()
    saved.apply(Kind.BEGIN, {"version": 9})
    assert saved.version == 3


def test_a_snapshot_replaces_all_that_was_before() -> None:
    saved = Saved(1)
    saved.apply(Kind.STEP, step("gone", 1))
    saved.apply(Kind.SNAPSHOT, {"saved": sample().encode()})
    assert saved == sample()
    assert saved.size == sample().size
    saved.apply(Kind.LOOP, loop("rows", Mark(42, 42, 1000)))
    assert set(saved.steps) == {"count", "day"}
    assert set(saved.cursors) == {"rows", "files"}


def test_a_kind_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(ProtocolError, match="99"):
        Saved(1).apply(99, {})


def test_a_moved_loop_drops_all_that_belonged_to_its_item_and_nothing_else() -> None:
    saved = Saved(1)
    saved.apply(Kind.STEP, step("rowsize", 1))
    saved.apply(Kind.STEP, step("rows/inner/deep", 1))  # no cursor of rows/inner was ever kept
    saved.apply(Kind.STEP, step("rows/parse", 2))
    saved.apply(Kind.LOOP, loop("rows/inner", Mark(1, 1)))
    assert set(saved.steps) == {"rowsize", "rows/parse"}
    saved.apply(Kind.LOOP, loop("rows", Mark(1, 1)))
    assert saved.steps == {"rowsize": 1}
    assert saved.cursors == {"rows": Mark(1, 1)}


def test_dropping_does_not_look_at_what_is_not_below() -> None:
    saved = Saved(1)
    for number in range(20_000):
        saved.apply(Kind.STEP, step(f"file-{number}", number))
    looked_at = saved._accounted().below("rows")
    assert looked_at == []
    saved.apply(Kind.STEP, step("rows/parse", 1))
    assert saved._accounted().below("rows") == ["rows/parse"]


def test_what_was_applied_is_not_shared_with_who_saved_it() -> None:
    value = [1]
    fields = step("a", value)
    saved = Saved(1)
    saved.apply(Kind.STEP, fields)
    value.append(2)
    assert saved.steps == {"a": [1]}


PATHS = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join)
RECORDS = st.lists(
    st.one_of(
        st.tuples(st.just(Kind.STEP), PATHS, st.integers()),
        st.tuples(st.just(Kind.LOOP), PATHS, st.integers(0, 9)),
        st.tuples(st.just(Kind.CHECKPOINT), PATHS, st.integers()),
    ),
    max_size=30,
)


def fields_of(kind: Kind, path: str, number: int) -> dict[str, Any]:
    if kind is Kind.STEP:
        return step(path, "x" * (number % 50))
    if kind is Kind.LOOP:
        return loop(path, Mark(number, number), state=data.encode({"n": number}))
    return {"state": data.encode({"c": number})}


@given(RECORDS)
def test_any_records_add_up_as_a_plain_look_at_all_paths_would(
    records: list[tuple[Kind, str, int]],
) -> None:
    saved = Saved(1)
    kept: dict[str, Any] = {}
    for kind, path, number in records:
        saved.apply(kind, loads(dumps(fields_of(kind, path, number))))
        if kind is not Kind.CHECKPOINT:
            if kind is Kind.LOOP:
                kept = {p: v for p, v in kept.items() if not p.startswith(path + "/")}
            kept[path] = number
        assert saved.steps.keys() | saved.cursors.keys() == kept.keys()
    assert saved.size == Saved.decode(saved.encode()).size
    assert Saved.decode(saved.encode()) == saved


@given(RECORDS)
def test_values_that_stay_bytes_add_up_to_the_same_bytes(
    records: list[tuple[Kind, str, int]],
) -> None:
    first = sample()
    first.state = {}  # a set has no order, and so no bytes of its own
    saved, raw = first, RawSaved.decode(first.encode())
    for kind, path, number in records:
        fields = loads(dumps(fields_of(kind, path, number)))
        saved.apply(kind, fields)
        raw.apply(kind, fields)
    assert raw.encode() == saved.encode()
    assert (raw.size, raw.empty, raw.version) == (saved.size, saved.empty, saved.version)
    assert RawSaved(1).empty
    assert RawSaved(1).encode() == Saved(1).encode()


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (Kind.STEP, {"path": "a", "value": 5}),
        (Kind.CHECKPOINT, {"state": {}}),
        (Kind.LOOP, {"path": "a", "mark": {"cursor": None, "done": 1}}),
        (Kind.SNAPSHOT, {"saved": data.encode(5)}),
    ],
)
def test_what_is_no_bytes_is_not_taken_for_a_value(kind: Kind, fields: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        RawSaved(1).apply(kind, fields)
