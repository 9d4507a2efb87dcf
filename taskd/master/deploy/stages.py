"""What a deploy goes through before the daemon holds: plan, trial, ``[hooks] before``; and what it
waits for once it does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from taskd.config import Hooks
from taskd.master.attempts import Attempts
from taskd.master.deploy import before, hooks, plan_questions, trial
from taskd.master.deploy.guard import Guard
from taskd.master.fleet import Children, Revision, Revisions, Workers
from taskd.model.worker import WorkerState


class Stage(Protocol):
    """One under way."""

    @property
    def waits_for(self) -> str:
        """What is not done yet, in words."""

    def stop(self) -> None:
        """Its outcome is of no use any more."""


class Stages:
    """Begins each stage; ``tried_by`` is asked for at the trial, since what it hands over lies
    above."""

    def __init__(
        self,
        planned_by: plan_questions.Sources,
        tried_by: Callable[[], trial.Means],
        hooked_by: before.Surroundings,
    ) -> None:
        self._planned_by = planned_by
        self._tried_by = tried_by
        self._hooked_by = hooked_by

    def plan(self, target: Revision, guard: Guard, done: plan_questions.Done) -> Stage:
        return plan_questions.Planning(self._planned_by, target, guard, guard.around(done))

    def try_out(self, target: Revision, python: str, guard: Guard, done: trial.Done) -> Stage:
        """Raises OSError if ``python`` cannot be started."""
        return trial.Trial(self._tried_by(), target, python, guard, guard.around(done))

    def before(
        self, settings: Hooks, target: Revision, previous: str, guard: Guard, done: hooks.Done
    ) -> Stage:
        around = self._hooked_by
        return before.Before(around, settings, target, previous, guard.around(done))


class Quiet:
    """Nothing may be half done at an exec."""

    def __init__(
        self, revisions: Revisions, workers: Workers, children: Children, attempts: Attempts
    ) -> None:
        self._revisions = revisions
        self._workers = workers
        self._children = children
        self._attempts = attempts

    def waits_for(self) -> list[str]:
        """Forks, claims and commands that are under way, in words; empty: none."""
        counts = {
            "workers being started": len(self._workers.in_state(WorkerState.ASKED)),
            "claims": sum(running.attempt == 0 for running in self._attempts.all()),
            "commands": len(self._children.helpers),
        }
        return [f"{what}: {count}" for what, count in counts.items() if count]

    def pids(self) -> list[int]:
        """Of processes that an answer may have to come from."""
        workers = [w.pid for w in self._workers if w.state is WorkerState.STARTING]
        return [*filter(None, workers), *(r.zygote.pid for r in self._revisions if r.zygote.pid)]
