"""Plain data: what goes in comes out, anything else is refused with a sentence that helps."""

from __future__ import annotations

import collections
import datetime as dt
import enum
import math
import pathlib
from decimal import Decimal
from fractions import Fraction
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, strategies as st
from support.naming import as_id

from taskd.errors import NotPlainData, ProtocolError
from taskd.protocol import data
from taskd.protocol.cbor import INT_BYTES

GOLDEN = pathlib.Path(__file__).parents[2] / "golden" / "data-1.hex"


def facts(value: Any) -> Any:
    """All that must come back of a value, as nested tuples: types, the sign of zero, and so on."""
    kind = type(value)
    if kind in (list, tuple):
        return kind, tuple(facts(item) for item in value)
    if kind is dict:
        return kind, tuple((facts(key), facts(item)) for key, item in value.items())
    if kind is set:
        return kind, tuple(sorted(repr(facts(member)) for member in value))
    if kind is dt.datetime:
        naive = value.tzinfo is None
        return kind, value.isoformat(), naive and value.fold
    return kind, repr(value)


def same(one: Any, other: Any) -> bool:
    """Equal and of the same types all the way down; NaN equals NaN, 0.0 is not -0.0."""
    return bool(facts(one) == facts(other))


def rebuilt(value: Any) -> Any:
    return data.decode(data.encode(value))


LARGEST = 2 ** (8 * INT_BYTES) - 1
OFFSETS = st.integers(-86399, 86399).map(lambda seconds: dt.timedelta(seconds=seconds))
NAMED = st.sampled_from(["UTC", "Etc/GMT+5", "Etc/GMT-14"]).map(ZoneInfo)
FIXED = st.builds(dt.timezone, OFFSETS) | NAMED
NAIVE = st.builds(lambda at, fold: at.replace(fold=fold), st.datetimes(), st.integers(0, 1))
LONG = st.binary(max_size=INT_BYTES).map(lambda raw: int.from_bytes(raw, "big"))
INTS = st.integers() | LONG | LONG.map(lambda n: -1 - n) | st.integers(2**64 - 2, 2**64 + 2)
KEY_ATOMS = st.one_of(
    st.none(),
    st.booleans(),
    INTS,
    st.floats(),
    st.text(),
    st.binary(),
    NAIVE,
    st.datetimes(timezones=FIXED),
    st.dates(),
    st.decimals().filter(lambda d: not d.is_snan()),
    st.uuids(),
)
KEYS = st.recursive(KEY_ATOMS, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=5)
ATOMS = KEY_ATOMS | st.decimals(allow_nan=True)
VALUES = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.lists(inner),
        st.lists(inner).map(tuple),
        st.dictionaries(KEYS, inner),
        st.sets(KEYS),
    ),
    max_leaves=30,
)


@given(VALUES)
def test_a_value_comes_back_equal_and_of_the_same_types(value: Any) -> None:
    assert same(rebuilt(value), value)


@given(VALUES)
def test_encoding_what_came_back_gives_the_same_bytes_for_all_but_sets(value: Any) -> None:
    raw = data.encode(value)
    assert len(data.encode(data.decode(raw))) == len(raw)


@given(st.datetimes(dt.datetime(2, 1, 1), dt.datetime(9990, 1, 1), timezones=st.timezones()))
def test_a_zone_is_refused_unless_its_loss_is_none(value: dt.datetime) -> None:
    try:
        back = rebuilt(value)
    except NotPlainData:
        return
    later = dt.timedelta(days=182)
    assert back == value
    assert (back + later).isoformat() == (value + later).isoformat()


@pytest.mark.parametrize(
    "value",
    [
        (),
        [],
        {},
        set(),
        {(): ()},
        {(1, (2, "x")): {(3,), b"4"}},
        [[(1,)], [[2]], ({"a": (None,)},)],
        math.nan,
        [math.inf, -math.inf, -0.0, 5e-324],
        {math.nan: 1},
        {1, 1.5, "1", b"1", None},
        {True: 1, 2: True},
        LARGEST,
        -LARGEST - 1,
        2**64,
        -(2**64) - 1,
        Decimal("1.10"),
        Decimal("-0E+5"),
        Decimal("1E+999999"),
        Decimal("NaN123"),
        Decimal("sNaN"),
        Decimal("-Infinity"),
        Decimal("3." + "1" * 500),
        dt.datetime(2026, 10, 25, 2, 30, fold=1),
        dt.datetime(1, 1, 1, tzinfo=dt.timezone(dt.timedelta(seconds=-53))),
        dt.datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Etc/GMT+5")),
        dt.date(1, 1, 1),
        UUID(int=0),
        "\x00",
        "\U0010ffff",
        "é" * 2000,
        [b"\xc2\x59" * 1000],
    ],
    ids=lambda value: as_id(value, 30),
)
def test_a_value_at_an_edge_comes_back(value: Any) -> None:
    assert same(rebuilt(value), value)


@pytest.mark.parametrize(("zone", "hours"), [("UTC", 0), ("Etc/GMT+5", -5)])
def test_a_datetime_in_a_zone_with_one_offset_keeps_that_and_loses_the_zones_name(
    zone: str, hours: int
) -> None:
    value = dt.datetime(2026, 7, 1, 12, tzinfo=ZoneInfo(zone))
    for kept in (value, [value], {value: 1}, {value}):
        assert rebuilt(kept) == kept
    assert rebuilt(value).tzinfo == dt.timezone(dt.timedelta(hours=hours))


def nested(depth: int) -> Any:
    value: Any = 1
    for level in range(depth):
        value = ([value], (value,), {"k": value})[level % 3]
    return value


def test_64_levels_are_kept_and_65_refused() -> None:
    assert same(rebuilt(nested(64)), nested(64))
    with pytest.raises(NotPlainData, match="nested more than 64 levels"):
        data.encode(nested(65))


def test_nested_tuples_as_a_key_count_as_levels_too() -> None:
    key: Any = 1
    for _ in range(63):
        key = (key,)
    assert same(rebuilt({key: 1}), {key: 1})
    with pytest.raises(NotPlainData, match="nested more than 64 levels"):
        data.encode({(key,): 1})
    with pytest.raises(NotPlainData, match="nested more than 64 levels"):
        data.encode({(key,)})


class Color(enum.IntEnum):
    RED = 1


class Text(str):
    pass


class Mapping(dict):  # type: ignore[type-arg]
    pass


Point = collections.namedtuple("Point", "x y")


class NoOffset(dt.tzinfo):
    def utcoffset(self, _: dt.datetime | None) -> None:
        return None


class OddZone(dt.tzinfo):
    def utcoffset(self, at: dt.datetime | None) -> dt.timedelta:
        assert at is not None
        return dt.timedelta(hours=at.month % 2)


REFUSED: list[tuple[Any, str]] = [
    (Color.RED, "Color.*value"),
    (Text("x"), r"Text.*str\(value\)"),
    (Mapping(), r"Mapping.*dict\(value\)"),
    (collections.OrderedDict(), r"OrderedDict.*dict\(value\)"),
    (Point(1, 2), r"Point.*tuple\(value\) or value._asdict"),
    (frozenset(), "frozenset.*a set"),
    (bytearray(b"x"), r"bytearray.*bytes\(value\)"),
    (memoryview(b"x"), r"memoryview.*bytes\(value\)"),
    (range(3), r"range.*list\(value\)"),
    ((each for each in ()), r"generator.*list\(value\)"),
    (1j, "complex.*value.real"),
    (Fraction(1, 2), "Fraction.*numerator"),
    (dt.timedelta(1), "timedelta.*total_seconds"),
    (dt.time(), "time.*isoformat"),
    (pathlib.Path("/x"), r"Path.*str\(value\)"),
    (object(), "object.*a dict of what is needed"),
    (object, "type.*a dict of what is needed"),
    (len, "builtin_function_or_method"),
    ("\ud800", "not valid Unicode.*position 0"),
    (LARGEST + 1, "int of 8,193 bits; at most 8,192"),
    (-LARGEST - 2, "int of 8,193 bits"),
    (dt.datetime(2026, 1, 1, tzinfo=NoOffset()), "gives no UTC offset"),
    (dt.datetime(2026, 1, 1, tzinfo=dt.timezone(dt.timedelta(microseconds=1))), "whole seconds"),
    (dt.datetime(2026, 1, 1, tzinfo=dt.timezone(dt.timedelta(seconds=-1.5))), "whole seconds"),
    (dt.datetime(2026, 1, 1, tzinfo=ZoneInfo("Europe/Berlin")), "a zone is not kept. Use .*name"),
    ([dt.datetime(2026, 1, 1, tzinfo=OddZone())], "offset changes"),
    ({dt.datetime(2026, 1, 1, tzinfo=ZoneInfo("Europe/Berlin"))}, r"astimezone\(timezone.utc\)"),
    ({dt.datetime(2026, 1, 1, tzinfo=ZoneInfo("Europe/Berlin")): 1}, "offset changes"),
]


@pytest.mark.parametrize(("value", "text"), REFUSED, ids=lambda value: as_id(value, 30))
@pytest.mark.parametrize("wrap", [lambda v: v, lambda v: {"rows": [0, 1, 2, v]}], ids=["", "deep"])
def test_what_is_not_plain_data_is_refused_with_its_path(wrap: Any, value: Any, text: str) -> None:
    with pytest.raises(NotPlainData, match=text) as caught:
        data.encode(wrap(value), "args")
    wanted = 'args["rows"][3]' if type(wrap(0)) is dict else "args"
    assert wanted in str(caught.value)


def test_a_bad_key_and_a_bad_member_are_named() -> None:
    with pytest.raises(NotPlainData, match=r"the key of type frozenset of args\[0\] is of type"):
        data.encode([{frozenset(): 1}], "args")
    with pytest.raises(NotPlainData, match=r'the member "\\udcff" of args\["x"\] is text'):
        data.encode({"x": {"\udcff"}}, "args")


def test_a_value_that_contains_itself_is_refused() -> None:
    rows: list[Any] = []
    rows.append({"again": rows})
    with pytest.raises(NotPlainData, match=r'args\[0\]\["again"\] contains itself'):
        data.encode(rows, "args")


def test_one_object_in_two_places_is_not_a_cycle() -> None:
    row = [1]
    assert rebuilt([row, row]) == [[1], [1]]


def test_lists_that_share_lists_without_end_are_refused_before_memory_runs_out() -> None:
    value: Any = [1, 2]
    for _ in range(60):
        value = [value, value]
    with pytest.raises(NotPlainData, match="more than 65,536 items"):
        data.encode(value, "cursor", data.CURSOR_LIMIT)


def test_a_value_above_its_limit_is_refused_with_size_limit_and_a_way_out() -> None:
    data.encode(b"x" * 97, limit=100)
    with pytest.raises(NotPlainData, match=r"cursor takes 103 bytes.*limit is 100\b.*ctx.scratch"):
        data.encode(b"x" * 101, "cursor", limit=100)


def test_a_refused_value_is_not_kept_alive_by_the_error() -> None:
    with pytest.raises(NotPlainData) as caught:
        data.encode([object()])
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


SAMPLES: list[Any] = [
    None,
    True,
    -1,
    2**64,
    -(2**70),
    1.5,
    "text é",
    b"bytes",
    [1, [2]],
    (1, ("x",)),
    {"a": 1, 2: None, (3,): "t"},
    {7},
    dt.datetime(2026, 11, 22, 12, 30, 1, 5),
    dt.datetime(2026, 10, 25, 2, 30, fold=1),
    dt.datetime(2026, 11, 22, 12, tzinfo=dt.timezone(dt.timedelta(hours=5, minutes=30))),
    dt.date(2026, 11, 22),
    Decimal("-1.50E+10"),
    Decimal("NaN"),
    UUID("12345678-1234-5678-1234-567812345678"),
]


def test_recorded_bytes_are_still_read_and_written_as_they_were() -> None:
    lines = [line.split("#")[0].strip() for line in GOLDEN.read_text().splitlines()]
    assert [data.encode(value).hex() for value in SAMPLES] == lines
    assert same([data.decode(bytes.fromhex(line)) for line in lines], SAMPLES)


def test_a_broken_message_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError):
        data.decode(b"")
