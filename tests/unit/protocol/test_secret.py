"""``Secret``: plain data that nothing shows."""

from __future__ import annotations

import copy
import json
import logging
import pathlib
import pickle
import traceback
from typing import Any

import pytest
from attempts import attempt
from hypothesis import given, strategies as st

from taskd import Secret, task, testing
from taskd.api.context import Context
from taskd.client.jsonform import to_json
from taskd.errors import NotPlainData, ProtocolError
from taskd.protocol import data, secret
from taskd.protocol.saved import Mark, Saved
from taskd.worker import failure

GOLDEN = pathlib.Path(__file__).parents[2] / "golden" / "data-2.hex"

VALUE = "hunter2-\N{SNOWMAN}"
TEXTS = st.text(min_size=secret.SHORTEST)

SAMPLES: list[Any] = [
    Secret("hunter2"),
    Secret(b"\x00key"),
    {"password": Secret(""), "list": [(Secret("a"),)]},
    {Secret("as a key"): {Secret("a member")}},
]


def test_recorded_bytes_are_still_read_and_written_as_they_were() -> None:
    lines = [line.split("#")[0].strip() for line in GOLDEN.read_text().splitlines()]
    assert [data.encode(value).hex() for value in SAMPLES] == lines
    assert [data.decode(bytes.fromhex(line)) for line in lines] == SAMPLES


@given(st.text() | st.binary())
def test_it_comes_back_equal_and_of_the_same_type(value: Any) -> None:
    made = data.decode(data.encode({"a": [Secret(value)]}))["a"][0]
    assert made == Secret(value)
    assert (type(made.reveal()), made.reveal()) == (type(value), value)
    assert hash(made) == hash(Secret(value))


def test_only_text_and_bytes_can_be_one() -> None:
    for value in (1, None, ["a"], Secret("a"), bytearray(b"a")):
        with pytest.raises(TypeError, match="holds str or bytes"):
            Secret(value)  # type: ignore[type-var]
    with pytest.raises(ValueError, match="valid Unicode"):
        Secret("\ud800")
    for broken in ("d9d35801", "d9d358f6", "d9d35880", "d9d358d9d3586161"):
        with pytest.raises(ProtocolError):
            data.decode(bytes.fromhex(broken))


def test_the_value_and_the_secret_are_not_equal() -> None:
    assert Secret("a") != "a"
    assert Secret("a") != Secret(b"a")
    assert Secret("a") != Secret("b")
    assert bool(Secret("a")) and not Secret("")


def test_nothing_shows_it(caplog: pytest.LogCaptureFixture) -> None:
    hidden = Secret(VALUE)
    shown = [repr(hidden), str(hidden), f"{hidden}", f"{hidden!r}", repr([hidden])]
    shown += [json.dumps(to_json({"a": hidden, hidden: 1}), ensure_ascii=False)]
    shown += [repr(vars(type(hidden))), repr(dir(hidden))]
    logging.getLogger("test").warning("%s %r", hidden, hidden)
    shown.append(caplog.text)
    assert [text for text in shown if VALUE in text] == []
    assert to_json([hidden, {"x": hidden}]) == ["••••", {"x": "••••"}]


def test_it_is_copied_as_it_is_and_not_pickled_nor_changed() -> None:
    hidden = Secret(VALUE)
    assert copy.copy(hidden) is hidden
    assert copy.deepcopy([hidden])[0] is hidden
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="not pickled"):
            pickle.dumps(hidden, protocol)
    with pytest.raises(AttributeError, match="does not change"):
        hidden._value = "x"


def test_what_cannot_be_saved_beside_one_is_told_without_it() -> None:
    with pytest.raises(NotPlainData) as caught:
        data.encode({"a": Secret(VALUE), "b": [object()]}, "args")
    assert VALUE not in "".join(traceback.format_exception(caught.value))
    with pytest.raises(NotPlainData) as caught:
        data.encode({Secret(VALUE): object()})
    assert VALUE not in str(caught.value)


def test_saved_state_keeps_it() -> None:
    saved = Saved(1)
    saved.state["token"] = Secret("a")
    saved.steps["login"] = Secret("b")
    saved.cursors["rows"] = Mark(Secret("c"), 1)
    raw = saved.encode()
    assert Saved.decode(raw) == saved
    assert raw.count(secret.MARK) == 3
    assert VALUE not in repr(saved)


# ── in a task ────────────────────────────────────────────────────────────────────────────────


@task
def reveals(ctx: Context, password: Secret[str], how: str) -> Any:
    value = password.reveal()
    ctx.state["also"] = [Secret("another one")]
    match how:
        case "returns":
            return [password, value == VALUE]
        case "raises":
            raise RuntimeError(f"cannot log in with {value} nor 'another one'")
        case "quotes":
            raise KeyError({"password": value})
        case "chains":
            try:
                raise ValueError(f"{value}!")
            except ValueError as error:
                raise RuntimeError("it failed") from error
        case "groups":
            raise ExceptionGroup("several", [ValueError(f"{value}!"), KeyError(1)])
    return None


def test_a_task_gets_it_as_one_and_can_return_it() -> None:
    done = testing.run(reveals, {"password": Secret(VALUE), "how": "returns"})
    assert done.result == [Secret(VALUE), True]


@pytest.mark.parametrize("how", ["raises", "quotes", "chains"])
@pytest.mark.parametrize("value", [VALUE, "two\nlines", "back\\slash '\"", "aaaa"])
def test_an_error_that_has_it_is_shown_without(how: str, value: str) -> None:
    ending = attempt(reveals.fn, {"password": Secret(value), "how": how})
    assert ending.error is not None
    text = repr(ending.error) + "".join(ending.error.values())
    assert value not in text and repr(value)[1:-1] not in "".join(ending.error.values())
    assert "another one" not in ending.error["message"]
    assert "••••" in "".join(ending.error.values())


@pytest.mark.parametrize("how", ["raises", "groups", "chains"])
def test_no_line_of_one_that_has_several_is_shown(how: str) -> None:
    lines = ["-----BEGIN-----", "AAAABBBBCCCC1234", "ab", "DDDDEEEEFFFF5678"]
    ending = attempt(reveals.fn, {"password": Secret("\n".join(lines)), "how": how})
    assert ending.error is not None
    assert not [line for line in (lines[1], lines[3]) if line in repr(ending.error)]


@task
def quotes_much(password: Secret[str], before: int) -> None:
    raise ValueError("x" * before + password.reveal() + "y" * 200_000)


def test_what_is_left_out_of_a_long_text_cuts_none_in_two() -> None:
    for before in range(failure.MESSAGE_LIMIT // 2 - 40, failure.MESSAGE_LIMIT // 2, 2):
        ending = attempt(quotes_much.fn, {"password": Secret(VALUE), "before": before})
        assert ending.error is not None
        assert VALUE[:6] not in ending.error["message"]


def test_a_text_is_hidden_longest_first_and_a_short_one_not_at_all() -> None:
    hidden = [Secret("abcd"), Secret("abcdef"), Secret("xy"), Secret(b"bytes")]
    assert secret.hide("abcdef abcd xy bytes", hidden) == "•••• •••• xy ••••"


@given(TEXTS, st.text(), st.text())
def test_what_is_hidden_is_gone(value: str, before: str, behind: str) -> None:
    shown = secret.hide(f"{before}{value}{behind}", [Secret(value)])
    assert shown.count(value) <= (before + secret.SHOWN + behind).count(value)


# ── what a client says of it ─────────────────────────────────────────────────────────────────


def test_a_value_that_holds_itself_is_looked_through_once() -> None:
    value: list[Any] = [Secret("a"), object()]
    value += [value, {"self": value}]
    assert secret.found_in(value) == [Secret("a")]
