"""The check of fields by a table, and what is read into a record."""

from __future__ import annotations

from typing import Any

import pytest

from taskd.errors import ProtocolError
from taskd.protocol.fields import Field, Fields, check, read
from taskd.record import Record

TABLE: Fields = {
    "id": Field(int, required=True),
    "done": Field(float, required=True, null=True),
    "note": Field(str, size=4),
    "parts": Field(list, 1, 2, each=Field(dict, each={"name": Field(str, required=True)})),
    "word": Field(str, among=frozenset(("a", "b"))),
}
WHOLE: dict[str, Any] = {"id": 1, "done": None, "note": "äb", "parts": [{"name": "n"}], "word": "a"}


def test_known_fields_pass_and_others_are_left_out() -> None:
    assert check(WHOLE | {"of_tomorrow": 1}, TABLE) == WHOLE
    assert check({"id": 1, "done": 2, "note": None}, TABLE) == {"id": 1, "done": 2}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"id": None}, "here: id is missing"),
        ({"id": True}, "here: id must be an int, not bool"),
        ({"id": 1 << 63}, "here: id is 9223372036854775808, which is too large"),
        ({"done": "1"}, "here: done must be a number, not str"),
        ({"done": float("nan")}, "here: done must be a number; it is nan"),
        ({"note": "äbc"[:2] + "cd"}, "here: note passes the limit of 4 bytes"),
        ({"note": "\udcff"}, r"here: note must be text; .* is no character"),
        ({"parts": []}, "here: parts must be a list of 1 to 2 items; it is of length 0"),
        ({"parts": [1]}, r"here: parts\[0\] must be a map, not int"),
        ({"parts": [{}]}, r"here: parts\[0\].name is missing"),
        ({"word": "c"}, "here: word must be one of a, b, not 'c'"),
    ],
)
def test_what_is_wrong_is_named_with_what_is_expected(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ProtocolError, match=words):
        check(WHOLE | wrong, TABLE, "here: ")


def test_a_field_that_may_be_null_must_still_be_there() -> None:
    with pytest.raises(ProtocolError, match="done is missing"):
        check({"id": 1}, TABLE)


class Kept(Record):
    id: bytes
    names: list[str]
    app: dict[str, Any] | None = None
    size: float = 1.5


def test_a_record_is_read_from_a_map_with_its_defaults() -> None:
    assert read(Kept, {"id": b"x", "names": [], "of_tomorrow": 1}) == Kept(b"x", [])
    whole = {"id": b"x", "names": ["n"], "app": {}, "size": 2}
    assert read(Kept, whole) == Kept(b"x", ["n"], {}, 2)
    for wrong, words in (
        ([1], "a map is expected, not list"),
        ({"id": b"x"}, "names is missing"),
        ({"id": "x", "names": []}, "id must be bytes, not str"),
        ({"id": b"x", "names": [], "app": 1}, "app must be a map, not int"),
    ):
        with pytest.raises(ProtocolError, match=words):
            read(Kept, wrong)
