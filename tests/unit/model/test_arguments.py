"""Arguments of a wrong type: which one, in a sentence; and forms that are not known."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, strategies as st

from taskd import Secret
from taskd.model.arguments import mistyped

SAMPLES: dict[str, Any] = {
    "int": 1,
    "float": 1.5,
    "str": "x",
    "bool": True,
    "bytes": b"x",
    "list": [1],
    "dict": {"a": 1},
    "datetime": datetime(2026, 12, 1),
    "Secret": Secret("hunter2"),
    "None": None,
}


def fault(form: Any, value: Any) -> str | None:
    return mistyped({"it": form}, {"it": value})


@pytest.mark.parametrize("form", SAMPLES)
def test_a_type_takes_its_own_values_and_a_float_an_int(form: str) -> None:
    taken = {name for name, value in SAMPLES.items() if fault(form, value) is None}
    assert taken == ({"float", "int"} if form == "float" else {form})


ORDER = ["fields", "Order", [["id", True], ["note", False]]]


@pytest.mark.parametrize(
    ("form", "value", "told"),
    [
        ("str", 3, "`it` must be a str, not an int"),
        ("int", True, "`it` must be an int, not a bool"),
        ("float", True, "`it` must be a float, not a bool"),
        ("str", None, "`it` must be a str, not None"),
        ("str", Secret("hunter2"), "`it` must be a str, not a Secret"),
        ("Secret", "hunter2", "`it` must be a Secret, not a str"),
        (["or", ["int", "None"]], "x", "`it` must be an int or None, not a str"),
        (["list", "int"], [1, 2, "x"], "`it[2]` must be an int, not a str"),
        (["list", "int"], {}, "`it` must be a list of int, not a dict"),
        (["or", [["list", "int"], "None"]], [1, "x"], "`it[1]` must be an int, not a str"),
        (["or", [["list", "int"], "None"]], 1, "`it` must be a list of int or None, not an int"),
        (["dict", "str", "int"], {"a": 1, "b": None}, "`it['b']` must be an int, not None"),
        (["dict", "str", "int"], {1: 1}, "each key of `it` must be a str, not an int"),
        (["dict", "str", None], [], "`it` must be a dict of str to anything, not a list"),
        (["literal", ["fast", "slow"]], "fsat", "`it` must be 'fast' or 'slow', not 'fsat'"),
        (["literal", [1, 2]], True, "`it` must be 1 or 2, not True"),
        (["list", ["literal", [1, 2]]], [1, True], "`it[1]` must be 1 or 2, not True"),
        (["list", ["literal", ["a"]]], ["a", ["a"]], "`it[1]` must be 'a', not a list"),
        (ORDER, {"note": ""}, "`it` must be a dict with the fields of Order: it lacks 'id'"),
        (ORDER, {"id": 1, "x": 1}, "with the fields of Order: it has 'x', which is none of them"),
        (["list", ORDER], [3], "`it[0]` must be a dict with the fields of Order, not an int"),
    ],
)
def test_a_fault_is_told_in_a_sentence(form: Any, value: Any, told: str) -> None:
    why = fault(form, value)
    assert why is not None
    assert told in why


def test_no_secret_is_told_and_no_text_is_long() -> None:
    assert "hunter2" not in str(fault(["literal", ["a"]], Secret("hunter2")))
    assert len(str(fault(["literal", ["a" * 10_000] * 500], "b" * 10_000))) < 1500
    assert "and one of 20 more" not in str(fault(["literal", list(range(30))], 77))
    assert "9 or one of 20 more, not 77" in str(fault(["literal", list(range(30))], 77))


@pytest.mark.parametrize(
    ("form", "value"),
    [
        ("int", 3),
        (["list", "float"], [1, 2.5]),
        (["list", ["or", ["int", "None"]]], [1, None]),
        (["list", ["literal", ["a", "b"]]], ["b", "a"]),
        (["dict", None, "int"], {1: 2, "b": 3}),
        (["list", ORDER], [{"id": 1}, {"id": 2, "note": "x"}]),
        (["or", ["int", ["list", "int"]]], [1]),
    ],
)
def test_what_fits_is_taken(form: Any, value: Any) -> None:
    assert fault(form, value) is None


def test_what_is_not_given_is_not_checked_nor_what_has_no_form() -> None:
    assert mistyped({"it": "int"}, {"other": "x"}) is None


@pytest.mark.parametrize("form", ["later", ["later", 1], ["list"], [], None, 7, ["or", [["x"]]]])
@pytest.mark.parametrize("value", SAMPLES.values(), ids=SAMPLES)
def test_a_form_of_a_later_taskd_takes_anything(form: Any, value: Any) -> None:
    assert fault(form, value) is None


words = st.sampled_from([*SAMPLES, "later"])
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
)
heads = st.sampled_from(["or", "list", "dict", "literal", "fields"])
forms = (
    anything | st.tuples(heads, anything, anything).map(list) | st.tuples(heads, anything).map(list)
)


@given(forms, anything)
def test_whatever_a_zygote_sends_as_a_form_is_judged(form: Any, value: Any) -> None:
    assert isinstance(fault(form, value), str | None)
