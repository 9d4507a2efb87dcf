"""The handoff's phases: one deploy at a time goes through them, or back to idle.

Pure. Each phase has a deadline. A refusal in any phase leads back to ``idle`` with a reason, and
then nothing has changed.

    idle ─begin→ proving ─proven→ planning ─accepted→ trying ─tried→ hooking ─hooked→ quiescing
           ↑________|_____refuse_____|_______________|_____________|______________|
           |                                                                      | quiet
           └──────────confirm── adopting ←─exec── execing ←─empty── emptying ←────┘

(and refuse leads back to idle from each of the lower row too).
"""

from __future__ import annotations

from enum import Enum


class Phase(str, Enum):
    """Where a deploy is."""

    IDLE = "idle"
    PROVING = "proving"  # the new zygote imports the app
    PLANNING = "planning"  # a worker of it answers for everything that waits and runs
    TRYING = "trying"  # its code adopts a copy of the live state, as a child
    HOOKING = "hooking"  # the app's own command before a deploy runs
    QUIESCING = "quiescing"  # no new fork or claim; those under way finish; the log is checkpointed
    EMPTYING = "emptying"  # clients are not read; what they asked for is answered
    EXECING = "execing"  # signals are held; the snapshot is written
    ADOPTING = "adopting"  # in the new image, until ``confirmed`` is written


class Step(str, Enum):
    """What moves a deploy on."""

    BEGIN = "begin"
    PROVEN = "proven"
    ACCEPTED = "accepted"
    TRIED = "tried"
    HOOKED = "hooked"
    QUIET = "quiet"
    EMPTY = "empty"
    EXEC = "exec"
    CONFIRM = "confirm"
    REFUSE = "refuse"


PHASES: dict[tuple[Phase, Step], Phase] = {
    (Phase.IDLE, Step.BEGIN): Phase.PROVING,
    (Phase.PROVING, Step.PROVEN): Phase.PLANNING,
    (Phase.PLANNING, Step.ACCEPTED): Phase.TRYING,
    (Phase.TRYING, Step.TRIED): Phase.HOOKING,
    (Phase.HOOKING, Step.HOOKED): Phase.QUIESCING,
    (Phase.QUIESCING, Step.QUIET): Phase.EMPTYING,
    (Phase.EMPTYING, Step.EMPTY): Phase.EXECING,
    (Phase.EXECING, Step.EXEC): Phase.ADOPTING,
    (Phase.ADOPTING, Step.CONFIRM): Phase.IDLE,
    (Phase.ADOPTING, Step.REFUSE): Phase.IDLE,
    (Phase.PROVING, Step.REFUSE): Phase.IDLE,
    (Phase.PLANNING, Step.REFUSE): Phase.IDLE,
    (Phase.TRYING, Step.REFUSE): Phase.IDLE,
    (Phase.HOOKING, Step.REFUSE): Phase.IDLE,
    (Phase.QUIESCING, Step.REFUSE): Phase.IDLE,
    (Phase.EMPTYING, Step.REFUSE): Phase.IDLE,
    (Phase.EXECING, Step.REFUSE): Phase.IDLE,
}
