"""What is to follow a failed try, as far as the task's own code says: the ``retry`` of END.

Runs in the worker that ran the try, and in tests: the rules may name classes and call a function of
the app's, which the master never imports. The master counts and decides (``model.retrying``).
"""

from __future__ import annotations

from typing import Any

from taskd.api.interrupt import TimedOut
from taskd.api.own_ends import Fail, OwnEnd, Retry
from taskd.api.retry_rules import RetryRules, checked_seconds
from taskd.model.retrying import LONGEST, USUAL_MAX
from taskd.worker.failure import name_of, one_line

_MEMBERS: Any = BaseExceptionGroup.exceptions
"""The attribute itself: a class of the app's may have another of that name."""


def after_failure(
    rules: RetryRules, exception: BaseException, failures: int | None
) -> dict[str, Any]:
    """``exception``: the task's error, or its own Retry or Fail, which no rule is asked about.
    ``failures``: how many were counted before this one; None: a master of 0.2 does not tell.
    Raises TypeError and ValueError for a Retry that no context has made."""
    told = rules.numbers()
    kind = type(exception)
    if issubclass(kind, OwnEnd):
        final = "the task said so (ctx.fail)" if issubclass(kind, Fail) else None
        if issubclass(kind, Retry) and not exception.counts:  # type: ignore[attr-defined]
            told["counts"] = False
        if (after := getattr(exception, "after", None)) is not None:
            return told | {"after": checked_seconds("after", after)}
    else:
        final = _by_rules(rules, exception)
    if final is not None:
        told["final"] = final
    elif rules.function is not None:
        told |= _of_function(rules, failures)
    return told


def _by_rules(rules: RetryRules, exception: BaseException) -> str | None:
    """As ``_final``; raises nothing."""
    try:
        return _final(rules, exception)
    except BaseException as error:  # of a class of the app's that says itself what derives from it
        return f"retry_on and give_up_on could not be looked at, which raised {name_of(error)}"


def _final(rules: RetryRules, exception: BaseException) -> str | None:
    """Why it is not to be tried again. Of a group no member may be given up on, and each must be
    one that is tried again, unless the group's own class says so."""
    members = _leaves(exception)
    for each in (exception, *members):
        if issubclass(type(each), rules.give_up_on):
            return f"give_up_on names {name_of(each)}"
    if rules.retry_on is None or issubclass(type(exception), (TimedOut, *rules.retry_on)):
        return None
    for each in members:
        if not issubclass(type(each), rules.retry_on):
            return f"retry_on does not name {name_of(each)}"
    return None


def _leaves(exception: BaseException) -> list[BaseException]:
    """Itself, or what a group of exceptions has in it."""
    found: list[BaseException] = []
    waiting = [exception]
    while waiting:
        each: Any = waiting.pop()
        if issubclass(type(each), BaseExceptionGroup):
            waiting += _MEMBERS.__get__(each)
        else:
            found.append(each)
    return found


def _of_function(rules: RetryRules, failures: int | None) -> dict[str, Any]:
    """The delay that the task's function makes, or why the exponential one holds."""
    most = rules.policy.max_backoff
    instead = "the exponential backoff was used"
    usual = {"max_backoff": min(most, USUAL_MAX)}
    if failures is None:
        return usual | {"note": f"the daemon does not tell how often it was tried: {instead}"}
    assert rules.function is not None, "the caller has looked"
    try:
        value = rules.function(failures + 1)
        if type(value) in (int, float):
            if 0 <= value <= most:
                return {"delays": [float(value)]}
            if most < value <= LONGEST:
                said = f"its backoff function returned {value:g} s; max_backoff is {most:g} s"
                return {"delays": [most], "note": said}
        shown = one_line(repr(value), 60)
    except BaseException as error:
        return usual | {"note": f"its backoff function raised {name_of(error)}: {instead}"}
    return usual | {"note": f"its backoff function returned {shown}: {instead}"}
