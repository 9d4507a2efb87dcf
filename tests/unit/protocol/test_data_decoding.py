"""What ``data.decode`` refuses, and that it refuses before anything is built."""

from __future__ import annotations

import datetime as dt
import re
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import cbor2
import pytest
from hypothesis import example, given, strategies as st

from taskd.errors import ProtocolError
from taskd.protocol import data

ALLOWED = {0, 2, 3, 37, 258, 1004, 54101, 54102, 54103, 54104}
INNERS = [
    b"\x61a",
    b"\x00",
    b"\x80",
    b"\x41a",
    b"\xa0",
    b"\x82\x00\x01",
    b"\xf6",
    b"\xfb" + b"\0" * 8,
]


def head(major: int, number: int) -> bytes:
    if number < 24:
        return bytes([major << 5 | number])
    for size, code in ((1, 24), (2, 25), (4, 26), (8, 27)):
        if number < 1 << 8 * size:
            return bytes([major << 5 | code]) + number.to_bytes(size, "big")
    raise AssertionError(number)


def tag(number: int, inner: bytes) -> bytes:
    return head(6, number) + inner


def test_of_all_tags_from_0_to_70000_only_the_listed_ones_ever_pass() -> None:
    passed = set()
    for number in [*range(70001), 2**32 - 1, 2**32, 2**63, 2**64 - 1]:
        for inner in INNERS if number in ALLOWED else INNERS[:3]:
            try:
                data.decode(tag(number, inner))
                passed.add(number)
            except ProtocolError as error:
                assert number in ALLOWED or f"tag {number} is not allowed" in str(error)
    assert passed == {258, 54101, 54104}  # of these contents; see below for the others


@pytest.mark.parametrize("number", range(400))
def test_a_tag_inside_others_is_refused_too(number: int) -> None:
    if number not in ALLOWED:
        for wrap in (b"\x81", b"\xa1\x61k", tag(54101, b"\x81"), tag(258, b"\x81")):
            with pytest.raises(ProtocolError, match=f"tag {number} is not allowed"):
                data.decode(wrap + tag(number, b"\x61a"))
        with pytest.raises(ProtocolError, match=f"tag {number} is not allowed"):
            data.decode(b"\xa1" + tag(number, b"\x61a") + b"\x00")


def compiles(decode: Callable[[bytes], object]) -> bool:
    """Whether decoding a regular expression (tag 35) compiles it: this one is then warned of."""
    re.purge()  # else it would be taken from memory the second time
    with warnings.catch_warnings(record=True) as seen, suppress(ProtocolError):
        warnings.simplefilter("always")
        decode(tag(35, b"\x64[[a]"))
    return any("nested set" in str(each.message) for each in seen)


def test_a_regular_expression_is_never_compiled() -> None:
    with pytest.raises(ProtocolError):
        data.decode(tag(35, b"\x64[[a]"))
    assert not compiles(data.decode)
    assert compiles(cbor2.loads), "the canary does sing where it is not guarded"


BROKEN: dict[str, bytes] = {
    "nothing": b"",
    "half a text": b"\x64abc",
    "bytes behind it": b"\x00\x00",
    "undefined": b"\xf7",
    "a simple value": b"\xe0",
    "a long simple value": b"\xf8\xff",
    "an indefinite text": b"\x7f\x61a\xff",
    "an indefinite list": b"\x9f\x00\xff",
    "a break": b"\xff",
    "a reserved length": b"\x1c",
    "text that is not UTF-8": b"\x61\xff",
    "a key twice": b"\xa2\x00\x01\x00\x02",
    "a map as a key": b"\xa1\xa0\x00",
    "undefined in a list": b"\x81\xf7",
    "a simple value as a key": b"\xa1\xe0\x00",
    "undefined in a set": tag(258, b"\x81\xf7"),
    "a set member twice": tag(258, b"\x82\x01\x01"),
    "a set in a set": tag(258, b"\x81" + tag(258, b"\x80")),
    "a map in a set": tag(258, b"\x81\xa0"),
    "a set that is no array": tag(258, b"\x01"),
    "a tuple that is no array": tag(54101, b"\xa0"),
    "a huge list": b"\x9b" + b"\xff" * 8,
    "a huge map": b"\xbb" + b"\xff" * 8,
    "huge bytes": b"\x5b\x7f" + b"\xff" * 7,
    "a small large int": tag(2, b"\x41\x01"),
    "a large int with zeros in front": tag(2, b"\x4a\x00" + b"\x01" * 9),
    "too large an int": tag(2, head(2, 1025) + b"\x01" * 1025),
    "a large int as text": tag(3, b"\x69" + b"1" * 9),
    "a short UUID": tag(37, b"\x41\x01"),
    "a UUID as text": tag(37, b"\x61a"),
    "a date with a time": tag(1004, b"\x73" + b"2026-01-01T00:00:00"),
    "a date in another form": tag(1004, b"\x68" + b"20260101"),
    "no date": tag(1004, b"\x6a" + b"2026-02-30"),
    "a naive datetime with an offset": tag(54102, b"\x78\x19" + b"2026-01-01T00:00:00+00:00"),
    "an aware datetime without one": tag(0, b"\x73" + b"2026-01-01T00:00:00"),
    "an offset with a fraction": tag(0, b"\x78\x23" + b"2026-01-01T00:00:00+00:00:01.500000"),
    "an aware datetime with Z": tag(0, b"\x74" + b"2026-01-01T00:00:00Z"),
    "a number as a datetime": tag(0, b"\x00"),
    "no Decimal": tag(54103, b"\x63abc"),
    "a Decimal in another form": tag(54103, b"\x64 1.0"),
    "a Decimal as a number": tag(54103, b"\x01"),
    "65 lists": b"\x81" * 64 + b"\x80",
    "ten thousand lists": b"\x81" * 10000 + b"\x80",
    "ten thousand tags": head(6, 54101) * 10000 + b"\x80",
    "65 tuples": (head(6, 54101) + b"\x81") * 64 + head(6, 54101) + b"\x80",
    "a fixed datetime twice, seen from two zones": tag(
        258,
        b"\x82"
        + data.encode(dt.datetime(2026, 1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1))))
        + data.encode(dt.datetime(2026, 1, 1, tzinfo=dt.UTC)),
    ),
}


@pytest.mark.parametrize("raw", BROKEN.values(), ids=BROKEN.keys())
def test_broken_bytes_are_a_protocol_error(raw: bytes) -> None:
    with pytest.raises(ProtocolError, match=r"^not plain data: "):
        data.decode(raw)


def items() -> st.SearchStrategy[Any]:
    tags = st.sampled_from([*ALLOWED, 1, 4, 25, 28, 29, 35, 36, 256]) | st.integers(0, 2**64 - 1)
    atoms = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(),
        st.binary(),
        st.just(cbor2.undefined),
    )
    return st.recursive(
        atoms,
        lambda inner: st.one_of(
            st.lists(inner, max_size=4),
            st.dictionaries(st.text() | st.integers(), inner, max_size=4),
            st.builds(cbor2.CBORTag, tags, inner),
        ),
        max_leaves=8,
    )


@given(st.binary(max_size=64) | items().map(cbor2.dumps))
@example(b"\xc1\xfb\x7f\xf0\x00\x00\x00\x00\x00\x00")
@example(tag(1004, b"\x6a0000-00-00"))
def test_any_bytes_are_a_value_that_encodes_again_or_a_protocol_error(raw: bytes) -> None:
    try:
        value = data.decode(raw)
    except ProtocolError:
        return
    assert repr(data.decode(data.encode(value))) == repr(value)


@given(items().map(cbor2.dumps), st.data())
def test_a_changed_byte_raises_nothing_but_a_protocol_error(
    raw: bytes, draw: st.DataObject
) -> None:
    at = draw.draw(st.integers(0, len(raw) - 1))
    changed = raw[:at] + bytes([draw.draw(st.integers(0, 255))]) + raw[at + 1 :]
    try:
        data.decode(changed)
    except ProtocolError:
        return
