"""Where the deploy is: its phase, the stage or deadline of the phase, and what it waits for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from taskd.errors import DeployRefused
from taskd.master.attempts import Attempts
from taskd.master.fleet import Children, Revisions, Workers
from taskd.master.loop import Deadline, Loop
from taskd.model.table import after
from taskd.model.upgrade import PHASES, Phase, Step
from taskd.model.worker import WorkerState
from taskd.record import Protocol

LOOK_WITHIN = 60.0
"""Seconds for the second look at the release's files, just before the daemon holds."""

QUIESCE_WITHIN = 20.0
"""Seconds for the forks and claims under way to finish."""

EMPTY_WITHIN = 10.0
"""Seconds for the requests under way to be answered."""

HELD = frozenset({Phase.QUIESCING, Phase.EMPTYING, Phase.EXECING, Phase.ADOPTING})
"""Phases in which the daemon holds: nothing new is begun (see ``loop.life``)."""


class Stage(Protocol):
    """A part of the deploy that runs on its own: the plan, the trial, or ``[hooks] before``."""

    @property
    def waits_for(self) -> str:
        """What is not done yet, in words."""

    def stop(self) -> None:
        """End it; its outcome is not told."""


class Progress:
    """``phase``, and since when (``since``: Unix seconds). ``stage``: the one that runs, if any."""

    def __init__(
        self,
        loop: Loop,
        revisions: Revisions,
        workers: Workers,
        children: Children,
        attempts: Attempts,
        in_flight: Callable[[], int],
    ) -> None:
        """``in_flight``: the number of client requests that are being carried out."""
        self._loop = loop
        self._revisions = revisions
        self._workers = workers
        self._children = children
        self._attempts = attempts
        self._in_flight = in_flight
        self._deadline: Deadline | None = None
        self.phase = Phase.IDLE
        self.since = 0.0
        self.stage: Stage | None = None

    def step(self, step: Step) -> None:
        self.phase = after(PHASES, self.phase, step)
        self.since = time.time()

    def within(self, seconds: float, why: str, refuse: Callable[[DeployRefused], None]) -> None:
        """Call ``refuse`` with ``why`` after ``seconds`` of the processes' own time, unless this
        or ``cancel_deadline`` is called before."""
        self.cancel_deadline()
        self._deadline = Deadline(
            self._loop,
            seconds,
            self._pids,
            lambda: refuse(DeployRefused(f"{why} ({seconds:.0f} s)")),
        )

    def cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def told(self) -> dict[str, Any] | None:
        """The phase, its start (Unix seconds), and what it waits for. None: there is no deploy."""
        if self.phase is Phase.IDLE:
            return None
        return {
            "phase": self.phase.value,
            "since": self.since,
            "waits_for": self.waits_for(),
        }

    def waits_for(self) -> list[str]:
        """What keeps the deploy in its phase, in words. Empty: nothing does."""
        if self.stage is not None:
            return [self.stage.waits_for]
        counts: dict[str, int] = {}
        match self.phase:
            case Phase.PROVING:
                return ["the release's app, which is imported"]
            case Phase.HOOKING:
                return ["a second look at the release's files"]
            case Phase.QUIESCING:  # none of these may be half done at an exec
                counts = {
                    "workers being started": len(self._workers.in_state(WorkerState.ASKED)),
                    "claims": len(self._attempts.offered.keys() | self._attempts.unsent.keys()),
                    "commands": len(self._children.helpers),
                }
            case Phase.EMPTYING:
                counts = {"requests": self._in_flight()}
        return [f"{what}: {count}" for what, count in counts.items() if count]

    def _pids(self) -> list[int]:
        """The processes that the deadline's phase may wait for: zygotes and starting workers."""
        workers = [w.pid for w in self._workers if w.state is WorkerState.STARTING]
        return [*filter(None, workers), *(r.zygote.pid for r in self._revisions if r.zygote.pid)]
