"""What ``@task`` says about retries: checked where it is written, and kept as ``RetryRules``.

Used wherever an app's modules are imported. ``worker.failed`` applies the rules to a failed try;
the numbers among them (``policy``) go to the master with the manifest and with each failure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isfinite
from typing import Any

from taskd.api.interrupt import TimedOut
from taskd.model.retrying import (
    FUNCTION_MAX,
    LONGEST,
    MOST_DELAYS,
    MOST_RETRIES,
    USUAL_JITTER,
    USUAL_MAX,
    Policy,
)

Backoff = str | float | Sequence[float] | Callable[[int], float]
Exceptions = type[BaseException] | tuple[type[BaseException], ...]
Kinds = tuple[type[BaseException], ...]

_BACKOFF = (
    'backoff must be "exponential", a number of seconds, a list of such numbers, or a function '
    "that takes the number of the retry (1, 2, …) and returns one"
)


class RetryRules:
    """``function``: makes each delay; then ``policy.delays`` is None. ``retry_on``: only these
    exceptions are tried again (None: all). ``give_up_on``: these never are."""

    __slots__ = ("function", "give_up_on", "policy", "retry_on")

    def __init__(
        self,
        retries: Any = 0,
        backoff: Any = "exponential",
        max_backoff: Any = None,
        jitter: Any = None,
        retry_on: Any = None,
        give_up_on: Any = (),
    ) -> None:
        """Raises TypeError and ValueError that say what to write instead."""
        self.function: Callable[[int], Any] | None = None
        delays, usual_max, usual_jitter = None, USUAL_MAX, USUAL_JITTER
        if callable(backoff) and not isinstance(backoff, type):
            self.function, usual_max, usual_jitter = backoff, FUNCTION_MAX, 0.0
        elif not (isinstance(backoff, str) and backoff == "exponential"):
            delays, usual_max, usual_jitter = _delays(backoff), LONGEST, 0.0
        self.policy = Policy(
            checked_retries(retries),
            delays,
            usual_max if max_backoff is None else checked_seconds("max_backoff", max_backoff),
            usual_jitter if jitter is None else _part(jitter),
        )
        self.retry_on = None if retry_on is None else _kinds("retry_on", retry_on)
        self.give_up_on = _kinds("give_up_on", give_up_on)

    def numbers(self) -> dict[str, Any]:
        """The policy as maps of the worker protocol and of END have it."""
        policy = self.policy
        return {
            "retries": policy.retries,
            "delays": None if policy.delays is None else list(policy.delays),
            "max_backoff": policy.max_backoff,
            "jitter": policy.jitter,
        }

    def in_manifest(self) -> dict[str, Any]:
        """What the master must know where no worker can tell."""
        return self.numbers() | {
            "function": self.function is not None,
            "gives_up": issubclass(TimedOut, self.give_up_on),
        }


def checked_retries(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"retries must be a whole number, not {value!r}")
    if not 0 <= value <= MOST_RETRIES:
        raise ValueError(f"retries must be 0 or more (up to {MOST_RETRIES:,}), not {value}")
    return value


def checked_seconds(what: str, value: Any) -> float:
    if type(value) not in (int, float):
        raise TypeError(f"{what} must be a number of seconds, not {value!r}")
    if not 0 <= value <= LONGEST:  # NaN is not
        raise ValueError(f"{what} must be from 0 to {LONGEST:.0f} seconds (366 days), not {value}")
    return float(value)


def _delays(backoff: Any) -> tuple[float, ...]:
    if type(backoff) in (int, float):
        return (checked_seconds("backoff", backoff),)
    if not isinstance(backoff, (list, tuple)):
        raise TypeError(f"{_BACKOFF}; not {backoff!r}")
    if not 1 <= len(backoff) <= MOST_DELAYS:
        raise ValueError(
            f"a list of backoffs has 1 to {MOST_DELAYS} numbers, not {len(backoff)}: the last one "
            "stands for all further retries"
        )
    return tuple(checked_seconds(f"backoff[{n}]", each) for n, each in enumerate(backoff))


def _part(jitter: Any) -> float:
    if type(jitter) not in (int, float) or not isfinite(jitter) or not 0 <= jitter <= 1:
        raise ValueError(
            f"jitter is the part of a delay that chance may take away, from 0 to 1, not {jitter!r}"
        )
    return float(jitter)


def _kinds(what: str, value: Any) -> Kinds:
    given = tuple(value) if isinstance(value, (list, tuple, set, frozenset)) else (value,)
    for each in given:
        if not (isinstance(each, type) and issubclass(each, BaseException)):
            raise TypeError(f"{what} takes classes of exceptions, not {each!r}")
    return given
