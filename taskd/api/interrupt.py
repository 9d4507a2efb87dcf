"""How a task is unwound before its end: exceptions that ``except Exception`` does not swallow.

Used in workers and in tests. They are raised only inside calls of the context, never from a
signal handler, so that ``finally`` and ``with`` run at a place that the task's author can see.
Once one was raised, every further call of the context raises it again.
"""

from __future__ import annotations


class Interrupted(BaseException):
    """The task was asked to leave (or is cancelled) and continues later from what is saved.

    ``why``: the reason in words. Let it pass; to clean up, use ``finally`` or ``with``.
    """

    def __init__(self, why: str = "") -> None:
        super().__init__(why)
        self.why = why


class Held(Interrupted):
    """What is saved and what the code does now do not fit; an operator must look at ``why``."""


class Sleeping(Interrupted):
    """A named sleep: the attempt ends and the next one begins at ``wake`` (Unix seconds)."""

    def __init__(self, wake: float) -> None:
        super().__init__("sleeping")
        self.wake = wake


class Yielded(Interrupted):
    """A command's exit status 75: it asks, by itself, to be continued later."""


def again(ending: Interrupted) -> Interrupted:
    """A fresh exception that says the same, to be raised by a later call."""
    if isinstance(ending, Sleeping):
        return Sleeping(ending.wake)
    return type(ending)(ending.why)
