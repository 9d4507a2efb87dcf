"""Exceptions that end a task's function before its end; ``except Exception`` does not catch them.

Used in workers and in tests. They are raised only inside calls of the context, never from a
signal handler, so that ``finally`` and ``with`` run at a place that the task's author can see.
After the first one, every further call of the context raises it again.
"""

from __future__ import annotations


class Interrupted(BaseException):
    """The task was asked to leave (or is cancelled) and continues later from what is saved.

    ``why``: the reason in words. Let it pass; to clean up, use ``finally`` or ``with``.
    """

    def __init__(self, why: str = "") -> None:
        super().__init__(why)
        self.why = why


class TimedOut(Exception):
    """The error of a try that ran for longer than its timeout. It is not raised in the task, which
    is asked to leave: it is for ``give_up_on``, and what the task shows."""


class Held(Interrupted):
    """The saved state does not fit what the code does now; an operator must look at ``why``."""


class Sleeping(Interrupted):
    """A named sleep: the attempt ends and the next one begins at ``wake`` (Unix seconds)."""

    def __init__(self, wake: float) -> None:
        super().__init__("sleeping")
        self.wake = wake


class Yielded(Interrupted):
    """The attempt ends without a wish to leave, and the task is continued later: a command's exit
    status 75, or a resource that this worker has run out of."""
