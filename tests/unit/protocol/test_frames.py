"""Frames: whatever way the bytes come in, the same messages come out; the rest is refused."""

from __future__ import annotations

from typing import Any

import cbor2
import pytest
from hypothesis import given, strategies as st

from taskd.errors import ProtocolError
from taskd.protocol import frames

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**64), 2**64 - 1) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
MESSAGES = st.dictionaries(st.text(), VALUES, max_size=4)


def taken(decoder: frames.Decoder) -> list[dict[str, Any]]:
    found = []
    while (message := decoder.next()) is not None:
        found.append(message)
    return found


def frame(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


@given(st.lists(MESSAGES, max_size=5), st.data())
def test_messages_come_out_whatever_pieces_the_bytes_come_in(
    messages: list[dict[str, Any]], draw: st.DataObject
) -> None:
    raw = b"".join(map(frames.encode, messages))
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    decoder = frames.Decoder()
    found = []
    for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True):
        decoder.feed(raw[start:end])
        found += taken(decoder)
    assert found == messages
    assert decoder.rest == b""


@given(st.lists(MESSAGES, min_size=1, max_size=5), st.data())
def test_the_rest_fed_to_another_decoder_loses_nothing(
    messages: list[dict[str, Any]], draw: st.DataObject
) -> None:
    raw = b"".join(map(frames.encode, messages))
    cut = draw.draw(st.integers(0, len(raw)))
    take = draw.draw(st.integers(0, len(messages)))
    first, second = frames.Decoder(), frames.Decoder()
    first.feed(raw[:cut])
    found = [message for _ in range(take) if (message := first.next()) is not None]
    second.feed(first.rest)
    second.feed(raw[cut:])
    assert found + taken(second) == messages


def test_the_largest_message_passes_and_one_byte_more_does_not() -> None:
    overhead = len(cbor2.dumps({"x": b"y" * 100_000})) - 100_000
    message = {"x": b"y" * (frames.LIMIT - overhead)}
    decoder = frames.Decoder()
    decoder.feed(frames.encode(message))
    assert decoder.next() == message
    with pytest.raises(ProtocolError, match=r"2,097,153 bytes; at most 2,097,152"):
        frames.encode({"x": message["x"] + b"y"})


@pytest.mark.parametrize("length", [0, frames.LIMIT + 1, 2**32 - 1])
def test_a_length_out_of_bounds_is_refused_before_its_body_comes(length: int) -> None:
    decoder = frames.Decoder()
    decoder.feed(length.to_bytes(4, "big"))
    with pytest.raises(ProtocolError, match="allowed are 1 to"):
        decoder.next()


def test_a_decoder_may_have_a_smaller_limit() -> None:
    decoder = frames.Decoder(limit=10)
    decoder.feed(frame(b"\xa1\x61a\x47" + b"x" * 7))
    with pytest.raises(ProtocolError, match="11 bytes; allowed are 1 to 10"):
        decoder.next()


BROKEN: dict[str, bytes] = {
    "no map": b"\x80",
    "no CBOR": b"\xff",
    "half a map": b"\xa1\x61a",
    "bytes behind the map": b"\xa0\x00",
    "a key that is an int": b"\xa1\x00\x00",
    "a key that is bytes": b"\xa1\x41a\x00",
    "a key that is a list": b"\xa1\x80\x00",
    "such a key further in": b"\xa1\x61a\x81\xa1\x00\x00",
    "a map as a key": b"\xa1\xa0\x00",
    "a key twice": b"\xa2\x61a\x00\x61a\x00",
    "an indefinite map": b"\xbf\xff",
    "an indefinite text": b"\xa1\x61a\x7f\x61b\xff",
    "text that is not UTF-8": b"\xa1\x61a\x61\xff",
    "65 levels": b"\xa1\x61a" + b"\x81" * 64 + b"\x00",
    "a hundred thousand levels": b"\xa1\x61a" * 100_000 + b"\x00",
    "a huge list": b"\xa1\x61a\x9b" + b"\xff" * 8,
    "a tagged map": b"\xd9\xd9\xf7\xa0",
    "a large int": b"\xa1\x61a\xc2\x49" + b"\x01" * 9,
    "a regular expression": b"\xa1\x61a\xd8\x23\x61a",
    "a shared value": b"\xa1\x61a\xd8\x1c\x80",
}


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_body_is_a_protocol_error_for_ever(body: bytes) -> None:
    decoder = frames.Decoder()
    decoder.feed(frame(body) + frames.encode({"fine": 1}))
    for _ in range(2):
        with pytest.raises(ProtocolError):
            decoder.next()


def test_no_tag_passes() -> None:
    for number in [*range(300), 1004, 1040, 43000, 54101, 55799, 2**16 - 1, 2**63]:
        decoder = frames.Decoder()
        decoder.feed(frame(cbor2.dumps({"a": cbor2.CBORTag(number, "x")})))
        with pytest.raises(ProtocolError, match=f"CBOR tag {number} is not allowed"):
            decoder.next()


@given(st.binary(max_size=80))
def test_any_bytes_give_a_map_nothing_or_a_protocol_error(body: bytes) -> None:
    decoder = frames.Decoder()
    decoder.feed(frame(body))
    try:
        message = decoder.next()
    except ProtocolError:
        return
    assert type(message) is dict
    assert all(type(key) is str for key in message)


def test_the_work_does_not_grow_with_the_square_of_what_is_buffered() -> None:
    """Counted in bytes that the buffer moved, not in seconds."""
    moved = 0

    class Counting(bytearray):
        def __delitem__(self, where: Any) -> None:
            nonlocal moved
            moved += len(self)
            super().__delitem__(where)

    small = frames.encode({"id": 1})
    decoder = frames.Decoder()
    decoder._buffer = Counting()
    decoder.feed(small * 10_000)
    assert len(taken(decoder)) == 10_000
    big = frames.encode({"x": b"y" * 1_000_000})
    for start in range(0, len(big), 1000):
        decoder.feed(big[start : start + 1000])
        last = decoder.next()
    assert last is not None
    assert moved <= 2 * (len(small) * 10_000 + len(big))
