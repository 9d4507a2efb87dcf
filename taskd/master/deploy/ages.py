"""How long tasks that are over are kept by a configuration, and what a deploy changes of that."""

from __future__ import annotations

from math import isinf

from taskd.config import Config, Retention
from taskd.model.retention import Ages
from taskd.model.task import State


def ages(config: Config) -> Ages:
    of = {queue: _by_state(kept) for queue, kept in config.retention.items()}
    return Ages(_by_state(config.retention_elsewhere), of)


def _by_state(kept: Retention) -> dict[State, float]:
    return {
        State.SUCCEEDED: kept.succeeded,
        State.FAILED: kept.failed,
        State.CANCELLED: kept.cancelled,
    }


def shortened(before: Config, after: Config) -> list[str]:
    """A sentence for each age that becomes shorter, since nothing brings back what that removes."""
    old, new = ages(before), ages(after)
    found = []
    for queue in sorted({*before.retention, *after.retention}):
        for state in new.usual:
            was, is_now = old.of(queue, state), new.of(queue, state)
            if is_now < was:
                found.append(
                    f"tasks of queue {queue!r} that {_PAST[state]} are removed after "
                    f"{age_text(is_now)} from now on (until now: {age_text(was)})"
                )
    return found


def age_text(seconds: float) -> str:
    """As in the file: ``7d``, ``12h``, ``90s``, ``forever``."""
    if isinf(seconds):
        return "forever"
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:g}s"


_PAST = {
    State.SUCCEEDED: "succeeded",
    State.FAILED: "failed",
    State.CANCELLED: "were cancelled",
}
