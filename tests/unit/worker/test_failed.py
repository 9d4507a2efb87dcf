"""What the code of a failed try says: which errors are tried again, and what its function makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from taskd.api.retry_rules import RetryRules
from taskd.protocol import fields
from taskd.protocol.records import RETRY
from taskd.worker.failed import after_failure


class Odd(type):
    def __subclasscheck__(cls, other: type) -> bool:
        raise RuntimeError("no answer")


class OddError(Exception, metaclass=Odd):
    pass


def told(exception: BaseException, failures: int | None = 0, **rules: Any) -> dict[str, Any]:
    found = after_failure(RetryRules(**rules), exception, failures)
    fields.check(found, RETRY)  # raises for what the master would not take
    return found


@pytest.mark.parametrize(
    ("exception", "rules", "final"),
    [
        (ValueError(), {}, None),
        (SystemExit(3), {}, None),
        (ConnectionError(), {"retry_on": OSError}, None),  # a subclass
        (ValueError(), {"retry_on": (OSError, KeyError)}, "retry_on does not name ValueError"),
        (ConnectionError(), {"give_up_on": OSError}, "give_up_on names ConnectionError"),
        (
            ConnectionError(),
            {"retry_on": OSError, "give_up_on": ConnectionError},
            "give_up_on names ConnectionError",
        ),
        (ValueError(), {"retry_on": ()}, "retry_on does not name ValueError"),
        (ExceptionGroup("", [OSError(), OSError()]), {"retry_on": OSError}, None),
        (
            ExceptionGroup("", [OSError(), ExceptionGroup("", [KeyError()])]),
            {"retry_on": OSError},
            "retry_on does not name KeyError",
        ),
        (
            ExceptionGroup("", [OSError(), KeyError()]),
            {"give_up_on": KeyError},
            "give_up_on names KeyError",
        ),
        (ExceptionGroup("", [OSError()]), {"retry_on": ExceptionGroup}, None),
        (
            ValueError(),
            {"retry_on": OddError},
            "retry_on and give_up_on could not be looked at, which raised RuntimeError",
        ),
    ],
)
def test_an_error_is_tried_again_if_it_is_named_and_not_given_up_on(
    exception: BaseException, rules: dict[str, Any], final: str | None
) -> None:
    assert told(exception, **rules).get("final") == final


def raises(number: int) -> float:
    raise KeyError(number)


@pytest.mark.parametrize(
    ("backoff", "delays", "note"),
    [
        (lambda number: 10 * number, [30.0], None),
        (lambda number: 0, [0.0], None),
        (raises, None, "its backoff function raised KeyError: the exponential backoff was used"),
        (lambda number: float("nan"), None, "returned nan: the exponential"),
        (lambda number: -1, None, "returned -1: the exponential"),
        (lambda number: float("inf"), None, "returned inf: the exponential"),
        (lambda number: None, None, "returned None: the exponential"),
        (lambda number: "5", None, "returned '5': the exponential"),
        (lambda number: 7 * 86400, [86400.0], "returned 604800 s; max_backoff is 86400 s"),
    ],
)
def test_a_backoff_function_is_asked_and_nonsense_is_said(
    backoff: Callable[[int], Any], delays: list[float] | None, note: str | None
) -> None:
    found = told(ValueError(), failures=2, backoff=backoff)
    assert found["delays"] == delays
    assert (note is None and "note" not in found) or note in found["note"]
    if delays is None:
        assert found["max_backoff"] == 600.0


def test_a_backoff_function_is_not_asked_where_a_daemon_of_0_2_does_not_tell_the_number() -> None:
    found = told(ValueError(), failures=None, backoff=raises)
    assert "the daemon does not tell" in found["note"]


def test_a_backoff_function_is_not_asked_of_what_is_not_tried_again() -> None:
    found = told(ValueError(), backoff=raises, give_up_on=ValueError)
    assert "note" not in found
