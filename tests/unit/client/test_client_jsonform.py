"""Values as JSON, and arguments of the command line as values."""

from __future__ import annotations

import datetime as dt
import json
import math
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, strategies as st
from support.naming import as_id

from taskd.client.jsonform import from_argument, task_to_json, to_json
from taskd.client.records import task_info
from taskd.protocol import data

FORMS: list[tuple[Any, Any]] = [
    (None, None),
    (True, True),
    (2**70, 2**70),
    ("text", "text"),
    (b"\x00\xff", {"$bytes": "AP8="}),
    ((1, (2,)), [1, [2]]),
    ({3, 1, 2}, [1, 2, 3]),
    ({"b", "a"}, ["a", "b"]),
    (dt.datetime(2026, 11, 22, 1, 2, 3), "2026-11-22T01:02:03"),
    (dt.datetime(2026, 11, 22, tzinfo=dt.UTC), "2026-11-22T00:00:00+00:00"),
    (dt.date(2026, 11, 22), "2026-11-22"),
    (Decimal("1.50"), "1.50"),
    (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    (math.nan, None),
    ([math.inf, -math.inf, 1.5], [None, None, 1.5]),
    ({"a": {"b": (1,)}}, {"a": {"b": [1]}}),
    ({1: "a", None: "b", False: "c", 2.5: "d"}, {"1": "a", "null": "b", "false": "c", "2.5": "d"}),
    (
        {dt.date(2026, 1, 1): 1, (1, "x"): 2, b"k": 3},
        {"2026-01-01": 1, '[1, "x"]': 2, '{"$bytes": "aw=="}': 3},
    ),
    ({1: "int", "1": "text"}, {"$items": [[1, "int"], ["1", "text"]]}),
]


@pytest.mark.parametrize(("value", "form"), FORMS, ids=lambda value: as_id(value, 30))
def test_each_kind_of_value_has_its_form(value: Any, form: Any) -> None:
    assert to_json(value) == form
    assert json.loads(json.dumps(to_json(value), allow_nan=False)) == form


ATOMS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.binary(),
    st.datetimes(),
    st.dates(),
    st.uuids(),
    st.decimals(allow_nan=False),
)
KEYS = ATOMS | st.tuples(ATOMS, ATOMS)
VALUES = st.recursive(
    ATOMS,
    lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner) | st.sets(KEYS),
    max_leaves=15,
)


@given(VALUES)
def test_every_plain_value_has_a_strict_json_form(value: Any) -> None:
    data.encode(value)
    form = to_json(value)
    assert json.loads(json.dumps(form, allow_nan=False)) == form


ARGUMENTS: list[tuple[str, Any]] = [
    ("5", 5),
    (" 5 ", 5),
    ("1.5", 1.5),
    ("-0", 0),
    ("true", True),
    ("null", None),
    ('"5"', "5"),
    ('[1, {"a": []}]', [1, {"a": []}]),
    ("", ""),
    ("text", "text"),
    ("True", "True"),
    ("007", "007"),
    ("NaN", "NaN"),
    ("[NaN]", "[NaN]"),
    ("-Infinity", "-Infinity"),
    ("1e999", "1e999"),
    ("'a'", "'a'"),
    ("{a: 1}", "{a: 1}"),
    ("1 2", "1 2"),
    ('"\\ud800"', '"\\ud800"'),
    ("9" * 5000, "9" * 5000),
    ("[" * 100_000, "[" * 100_000),
    ("[" * 100_000 + "]" * 100_000, "[" * 100_000 + "]" * 100_000),
    ("/data/big.csv", "/data/big.csv"),
    ("2026-11-22", "2026-11-22"),
]


@pytest.mark.parametrize(("text", "value"), ARGUMENTS, ids=lambda value: as_id(value, 20))
def test_an_argument_is_strict_json_or_else_its_text(text: str, value: Any) -> None:
    found = from_argument(text)
    assert found == value
    assert type(found) is type(value)


@given(st.text())
def test_any_argument_has_a_value_that_can_be_written_as_json(text: str) -> None:
    json.dumps(from_argument(text), allow_nan=False)


def test_a_task_has_exactly_the_documented_fields() -> None:
    wire = {
        "id": 17,
        "name": "a",
        "queue": "q",
        "state": "succeeded",
        "shown": "succeeded",
        "result": data.encode((1, math.nan)),
        "submitted": 1.5,
        "attempt": 2,
        "color": "of a later version",
    }
    assert task_to_json(task_info(wire)) == {
        "id": "17",
        "name": "a",
        "queue": "q",
        "state": "succeeded",
        "reason": None,
        "attempt": 2,
        "revision": None,
        "progress": None,
        "result": [1, None],
        "error": None,
        "submitted": 1.5,
        "started": None,
        "ended": None,
        "priority": 0,
        "parent": None,
        "after": [],
        "timeout": None,
        **dict.fromkeys(("key", "owner", "arguments", "pid", "memory", "log", "silent")),
    }


def test_a_result_that_is_no_value_is_shown_as_what_stands_there() -> None:
    wire = {"id": 1, "name": "a", "queue": "q", "state": "succeeded", "result": b"\xff\xff"}
    assert task_to_json(task_info(wire))["result"] == {"$damaged": "//8="}
