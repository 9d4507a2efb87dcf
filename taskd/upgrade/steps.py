"""The steps of a handoff, by name: what a failure is told with, and where tests make one happen.

Runs in the old master, in the trial and in the new image, from its first line on: so it imports
next to nothing. ``reach`` notes the step that begins. Where ``$TASKD_FAULT`` names a file and taskd
stands beside its tests (an installed one does not), the file's one line "STEP KIND" makes that step
fail, once: the file is removed first. KIND is exception, exit, hang, kill, stop or segfault. Nobody
waits for all of the deadline that ends a hang: an interval timer is cut short by the hang itself,
and the other ones begin short if they are for the step that it is asked for at (``patience``). What
comes before that step has its usual time, however busy the machine is.
"""

from __future__ import annotations

import os

OLD = ("prove", "plan", "try", "hook", "quiesce", "empty", "hold signals", "flush",
       "close the store", "take the snapshot", "open the descriptors", "exec")  # fmt: skip
"""In the old master; everything before ``exec`` is undone by a refusal."""

NEW = ("first stage", "read the snapshot", "check the descriptors", "load", "check the children",
       "open the store", "confirm")  # fmt: skip
"""In the new image, before the point of no return: a failure goes back to the old image."""

AFTER = ("settle in", "announce", "serve")
"""Behind the point of no return: a failure is a crash, and the next start is the new release."""

ALL = (*OLD, *NEW, *AFTER)

TRIED = tuple(f"trial: {step}" for step in NEW)
"""What the steps of ``NEW`` are called in the trial where tests make them fail."""

POINT_OF_NO_RETURN = "settle in"
"""The first step with ``confirmed`` naming the new release."""

TAKEOVER = "taskd.takeover.first"
"""The module that a new image begins with."""

TRIAL = "taskd.takeover.trial"
"""The module that tries it out."""

_TESTS = os.path.join(os.path.dirname(__file__), "..", "..", "tests", "handoff", "matrix.py")

_fault_file = os.environ.get("TASKD_FAULT")
if _fault_file is not None and not os.path.exists(_TESTS):
    _fault_file = None

_SHORT, _SHORT_OF_ALL = 1.0, 3.0
"""Seconds until a hang that a test asks for is ended: from its begin, or together with what comes
before it."""


class Place:
    """Which step this process is at; ``passed`` is True behind the point of no return.

    ``is_trial``: it only tries (``TRIED``).
    """

    def __init__(self) -> None:
        self.step = NEW[0]
        self.passed = False
        self.is_trial = False


here = Place()

handed: list[int] = []
"""In the new image: the descriptors that came over the exec, once they are close-on-exec again."""


def reach(step: str) -> None:
    """The named step begins. Invariant: what may only come before ``confirmed`` is written comes
    before it."""
    assert step in ALL, step
    assert not (here.passed and step in NEW), f"{step} behind the point of no return"
    here.step = step
    here.passed = step in AFTER
    if _fault_file is not None:
        _fail_if_asked(f"trial: {step}" if here.is_trial else step, _fault_file)


def patience(seconds: float, ends: tuple[str, ...]) -> float:
    """``seconds``, of a deadline that ends a hang at these steps; less while a test asks for one
    there."""
    if _fault_file is None:
        return seconds
    wanted, kind = _asked(_fault_file)
    return min(seconds, _SHORT_OF_ALL) if kind == "hang" and wanted in ends else seconds


def _asked(path: str) -> tuple[str, str]:
    """The step and the kind that the file names."""
    try:
        with open(path, encoding="ascii") as file:
            wanted, _, kind = file.read().strip().rpartition(" ")
    except OSError:  # not there, or no descriptor is left to look
        return "", ""
    return wanted, kind


def _fail_if_asked(step: str, path: str) -> None:
    wanted, kind = _asked(path)
    if wanted != step:
        return
    os.unlink(path)
    _fail(step, kind)


def _fail(step: str, kind: str) -> None:
    import signal
    import sys
    import time

    match kind:
        case "exception":
            raise RuntimeError(f"asked to fail at '{step}'")
        case "exit":
            sys.exit(3)
        case "hang":
            if step in OLD or step in AFTER:
                left, _ = signal.getitimer(signal.ITIMER_REAL)
                signal.setitimer(signal.ITIMER_REAL, min(left, _SHORT))
            time.sleep(3600)
        case "segfault":
            import ctypes

            ctypes.string_at(0)
        case "kill" | "stop":
            os.kill(os.getpid(), signal.SIGKILL if kind == "kill" else signal.SIGSTOP)
