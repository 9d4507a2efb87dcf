"""The failure matrix of a handoff: for every step and every kind of failure, what comes of it.

One structure: the tests run its cells, and the README's table is made from it (``table``). A cell
that is not run says why: the same code stands behind it as behind one that is.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from taskd.upgrade import steps

TRIAL = steps.NEW[: steps.NEW.index("confirm")]
"""The steps of the new image that its trial goes through, as a child, from the first line on."""


class Stage(str, Enum):
    """Where the failure is."""

    OLD = "in the old master, before the exec"
    TRIAL = "in the trial"
    NEW = "in the new image, before `confirmed`"
    AFTER = "after `confirmed`"


class Kind(str, Enum):
    """What goes wrong."""

    EXCEPTION = "an exception"
    EXIT = "an exit"
    HANG = "a hang"
    KILL = "SIGKILL"
    SEGFAULT = "a segmentation fault"
    STOP = "SIGSTOP, until SIGCONT"
    FULL = "the disk is full"
    DESCRIPTORS = "no descriptor is free"
    PYTHON = "`execve` fails"


class Outcome(str, Enum):
    """What the caller is told, and who serves then. "Kept": the pid and every connection."""

    REFUSED = "refused; the old revision serves, all is kept"
    SERVES = "goes through"
    EITHER = "goes through, or is refused as above"
    PREVIOUS = "a crash: the next start takes the old revision"
    NEXT = "a crash: the next start takes the new revision"


class Cell(NamedTuple):
    """``redundant``: why it need not be run, or None."""

    stage: Stage
    step: str
    kind: Kind
    outcome: Outcome
    redundant: str | None = None

    @property
    def name(self) -> str:
        return f"{self.stage.name.lower()}, {self.step}: {self.kind.name.lower()}"


STEPS = {
    Stage.OLD: steps.OLD,
    Stage.TRIAL: TRIAL,
    Stage.NEW: steps.NEW,
    Stage.AFTER: steps.AFTER,
}

USUAL: dict[tuple[Stage, Kind], Outcome] = {
    (Stage.OLD, Kind.EXCEPTION): Outcome.REFUSED,
    (Stage.OLD, Kind.EXIT): Outcome.REFUSED,
    (Stage.OLD, Kind.HANG): Outcome.REFUSED,
    (Stage.OLD, Kind.KILL): Outcome.PREVIOUS,
    (Stage.OLD, Kind.SEGFAULT): Outcome.PREVIOUS,
    (Stage.OLD, Kind.STOP): Outcome.SERVES,
    (Stage.OLD, Kind.FULL): Outcome.REFUSED,
    (Stage.OLD, Kind.DESCRIPTORS): Outcome.REFUSED,
    (Stage.TRIAL, Kind.EXCEPTION): Outcome.REFUSED,
    (Stage.TRIAL, Kind.EXIT): Outcome.REFUSED,
    (Stage.TRIAL, Kind.HANG): Outcome.REFUSED,
    (Stage.TRIAL, Kind.KILL): Outcome.REFUSED,
    (Stage.TRIAL, Kind.SEGFAULT): Outcome.REFUSED,
    (Stage.TRIAL, Kind.STOP): Outcome.SERVES,
    (Stage.TRIAL, Kind.FULL): Outcome.EITHER,
    (Stage.TRIAL, Kind.DESCRIPTORS): Outcome.REFUSED,
    (Stage.NEW, Kind.EXCEPTION): Outcome.REFUSED,
    (Stage.NEW, Kind.EXIT): Outcome.REFUSED,
    (Stage.NEW, Kind.HANG): Outcome.REFUSED,
    (Stage.NEW, Kind.KILL): Outcome.PREVIOUS,
    (Stage.NEW, Kind.SEGFAULT): Outcome.PREVIOUS,
    (Stage.NEW, Kind.STOP): Outcome.SERVES,
    (Stage.NEW, Kind.FULL): Outcome.REFUSED,
    (Stage.NEW, Kind.DESCRIPTORS): Outcome.REFUSED,
    (Stage.AFTER, Kind.EXCEPTION): Outcome.NEXT,
    (Stage.AFTER, Kind.EXIT): Outcome.NEXT,
    (Stage.AFTER, Kind.HANG): Outcome.NEXT,
    (Stage.AFTER, Kind.KILL): Outcome.NEXT,
    (Stage.AFTER, Kind.SEGFAULT): Outcome.NEXT,
    (Stage.AFTER, Kind.STOP): Outcome.SERVES,
    (Stage.AFTER, Kind.FULL): Outcome.SERVES,
    (Stage.AFTER, Kind.DESCRIPTORS): Outcome.SERVES,
}
"""What comes of it at every step of the stage but the ones in ``EXCEPTIONS``."""

MADE_ROOM = ("try", "hook", "quiesce", "empty", "hold signals", "flush", "close the store",
             "take the snapshot")  # fmt: skip
"""The store's log is checkpointed in between, which may make the little room that is needed."""

EXCEPTIONS: dict[tuple[str, Kind], Outcome] = {
    # The probe worker's connection waits in the backlog until a descriptor is free again.
    ("plan", Kind.DESCRIPTORS): Outcome.SERVES,
    **{(step, Kind.FULL): Outcome.EITHER for step in MADE_ROOM},
}
"""In the old master."""

_BOUNDARY = "one boundary stands around every step: run where a callback and where the last act is"
_TIMER = "one timer stands behind it: run at the first and last steps, and in between"
_DEATH = "no code of ours runs after it: run once in each stage"
_CHILD = "the trial is one child, and how it ends is all that the master sees: run at one step"

RUN_AT: dict[tuple[Stage, Kind], tuple[tuple[str, ...], str]] = {
    (Stage.OLD, Kind.EXIT): (("plan", "flush"), _BOUNDARY),
    (Stage.OLD, Kind.HANG): (("prove", "quiesce", "flush", "exec"), _TIMER),
    (Stage.OLD, Kind.SEGFAULT): (("exec",), _DEATH),
    (Stage.TRIAL, Kind.EXIT): (("load",), _CHILD),
    (Stage.TRIAL, Kind.HANG): (("load",), _CHILD),
    (Stage.TRIAL, Kind.KILL): (("load",), _CHILD),
    (Stage.TRIAL, Kind.SEGFAULT): (("load",), _CHILD),
    (Stage.TRIAL, Kind.STOP): (("load",), _CHILD),
    (Stage.TRIAL, Kind.FULL): (("open the store",), "only the store is on the disk"),
    (Stage.NEW, Kind.EXIT): (("load", "confirm"), _BOUNDARY),
    (Stage.NEW, Kind.HANG): (("first stage", "load", "confirm"), _TIMER),
    (Stage.NEW, Kind.SEGFAULT): (("first stage",), _DEATH),
    (Stage.AFTER, Kind.EXIT): (("announce",), _DEATH),
    (Stage.AFTER, Kind.HANG): (("settle in", "serve"), _TIMER),
    (Stage.AFTER, Kind.SEGFAULT): (("announce",), _DEATH),
}
"""Where a kind is run, and why not at the stage's other steps; those not named are run at all."""


def _cell(stage: Stage, step: str, kind: Kind) -> Cell:
    outcome = USUAL[stage, kind]
    if stage is Stage.OLD:
        outcome = EXCEPTIONS.get((step, kind), outcome)
    run_at, why = RUN_AT.get((stage, kind), ((step,), ""))
    return Cell(stage, step, kind, outcome, None if step in run_at else why)


CELLS: list[Cell] = [
    *(
        _cell(stage, step, kind)
        for stage in Stage
        for step in STEPS[stage]
        for kind in Kind
        if kind is not Kind.PYTHON
    ),
    Cell(Stage.OLD, "exec", Kind.PYTHON, Outcome.REFUSED),
]

# ── the README's table ───────────────────────────────────────────────────────────────────────

TOGETHER: list[tuple[Kind, ...]] = [
    (Kind.EXCEPTION, Kind.EXIT),
    (Kind.HANG,),
    (Kind.KILL, Kind.SEGFAULT),
    (Kind.STOP,),
    (Kind.FULL,),
    (Kind.DESCRIPTORS,),
    (Kind.PYTHON,),
]
"""The table's lines: kinds with the same outcomes share one."""


def table() -> str:
    """The matrix in short, as Markdown: a line for a kind, a column for a stage."""
    lines = [["what goes wrong", *(stage.value for stage in Stage)]]
    lines.append(["---"] * len(lines[0]))
    for kinds in TOGETHER:
        name = " or ".join(kind.value for kind in kinds)
        lines.append([name, *(_in_short(stage, kinds) for stage in Stage)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _in_short(stage: Stage, kinds: tuple[Kind, ...]) -> str:
    found = {cell.outcome for cell in CELLS if cell.stage is stage and cell.kind in kinds}
    if len(found) > 1:  # by the step: in the test's table
        assert found <= {Outcome.REFUSED, Outcome.SERVES, Outcome.EITHER}
        return "refused, or goes through at steps that need none"
    return found.pop().value if found else "—"
