"""The steps of a handoff, by name: what a failure is told with, and where tests make one happen.

Runs in the old master, in the trial and in the new image, from its first line on: so it imports
next to nothing. ``reach`` notes the step that begins. Where ``$TASKD_FAULT`` names a file and taskd
stands beside its tests (an installed one does not), the file's one line "STEP KIND" makes that step
fail, once: the file is removed first. KIND is exception, exit, hang, kill, stop or segfault. So
that a test need not wait for the whole deadline that ends a hang, the hang itself shortens an
interval timer, and ``patience`` shortens the other deadlines if they are for the step that hangs.
The steps before it have their usual time, however busy the machine is.
"""

from __future__ import annotations

import os

OLD_IMAGE, NEITHER, NEW_IMAGE = "the old image", "neither image", "the new image"

BATON = {
    "prove": OLD_IMAGE,
    "plan": OLD_IMAGE,
    "try": OLD_IMAGE,
    "hook": OLD_IMAGE,
    "quiesce": OLD_IMAGE,
    "empty": OLD_IMAGE,
    "hold signals": OLD_IMAGE,
    "flush": OLD_IMAGE,
    "close the store": OLD_IMAGE,
    "take the snapshot": OLD_IMAGE,
    "open the descriptors": OLD_IMAGE,
    "exec": OLD_IMAGE,
    "first stage": NEITHER,
    "read the snapshot": NEITHER,
    "check the descriptors": NEITHER,
    "load": NEITHER,
    "check the children": NEITHER,
    "open the store": NEITHER,
    "confirm": NEITHER,
    "settle in": NEW_IMAGE,
    "announce": NEW_IMAGE,
    "serve": NEW_IMAGE,
}
"""Who holds the baton in which step: who may read, accept, reap, dispatch and write; in their
order. With the old image a failure is undone and refuses the deploy. With neither it gives the
baton back to the old image. With the new one it is a crash, and the next start is the new release:
``confirmed`` names it from before ``settle in`` on."""

OLD, NEW, AFTER = (
    tuple(step for step, holder in BATON.items() if holder == of)
    for of in (OLD_IMAGE, NEITHER, NEW_IMAGE)
)

TRIED = tuple(f"trial: {step}" for step in NEW)
"""What the steps of ``NEW`` are called in the trial where tests make them fail."""

TAKEOVER = "taskd.takeover.first"
"""The module that a new image begins with."""

TRIAL = "taskd.takeover.trial"
"""The module that tries it out."""

IS_TRIAL = "TASKD_TRIAL"
"""Set in the environment of a new image that is only tried out."""

_TESTS = os.path.join(os.path.dirname(__file__), "..", "..", "tests", "handoff", "matrix.py")

_fault_file = os.environ.get("TASKD_FAULT")
if _fault_file is not None and not os.path.exists(_TESTS):
    _fault_file = None

_SHORT, _SHORT_OF_ALL = 1.0, 3.0
"""Seconds until a hang that a test asks for is ended: counted from the hang's begin, or from the
begin of the deadline."""


class Place:
    """The step that this process is at. ``passed``: it is behind the point of no return.
    ``is_trial``: this process is a trial (``TRIED``)."""

    step = NEW[0]
    passed = False
    is_trial = False


here = Place()

handed: list[int] = []
"""In the new image: the descriptors that came over the exec, once they are close-on-exec again."""


def reach(step: str) -> None:
    """The named step begins. Invariant: what may only come before ``confirmed`` is written comes
    before it."""
    assert step in BATON, step
    assert not (here.passed and step in NEW), f"{step} behind the point of no return"
    here.step = step
    here.passed = step in AFTER
    if _fault_file is not None:
        name = f"trial: {step}" if here.is_trial else step
        wanted, kind = _asked(_fault_file)
        if wanted == name:
            os.unlink(_fault_file)
            _fail(name, kind)


def patience(seconds: float, ends: tuple[str, ...]) -> float:
    """The length of a deadline that ends a hang at these steps: ``seconds``, or less while a test
    asks for a hang at one of them."""
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
