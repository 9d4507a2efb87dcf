"""Order: what the end of a task means for one that is to run after it.

Pure.
"""

from __future__ import annotations

from enum import Enum

from taskd.model.task import Change, State


class IfFailed(str, Enum):
    """What becomes of a task if one that it comes after does not succeed (fails, or is cancelled):
    it waits until that one has succeeded after all, is cancelled, or runs as if it had."""

    HOLD = "hold"
    CANCEL = "cancel"
    RUN = "run"


MOST_AFTER = 1000
"""Tasks that one task may come after."""


def after_end(if_failed: IfFailed, ended: State) -> Change | None:
    """What follows for a task that waits for one that has ``ended``; None: it goes on waiting."""
    if ended is State.SUCCEEDED or if_failed is IfFailed.RUN:
        return Change.DUE
    return Change.CANCEL if if_failed is IfFailed.CANCEL else None
