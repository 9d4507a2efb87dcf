"""``[hooks] before`` of a deploy: runs after the trial, before the daemon holds."""

from __future__ import annotations

from taskd import log
from taskd.config import Hooks
from taskd.master.deploy.after_drain import AfterDrain
from taskd.master.deploy.hooks import Command, Done, Order, Outcome, report
from taskd.master.fleet import Children, Revision
from taskd.master.loop import Loop
from taskd.record import Record


class Surroundings(Record):
    """What the command is run with. It waits for a running ``after_drain``, since both commands may
    change the same things."""

    loop: Loop
    children: Children
    after_drain: AfterDrain


class Before:
    """The command of one deploy; over at once if none is configured. ``done`` is called exactly
    once, after the constructor has returned, unless ``stop`` comes before."""

    def __init__(
        self, around: Surroundings, hooks: Hooks, target: Revision, previous: str, done: Done
    ) -> None:
        """``previous``: the directory of the release that serves."""
        self._around = around
        self._hooks = hooks
        self._target = target
        self._previous = previous
        self._done = done
        self._command: Command | None = None
        self.waits_for = "[hooks] after_drain"
        self._timer = around.loop.after(0, self._begin)

    def stop(self) -> None:
        self._timer.cancel()
        self._around.after_drain.then = None
        if self._command is not None:
            self._command.stop()

    def _begin(self) -> None:
        if self._around.after_drain.command is not None:
            self._around.after_drain.then = self._begin
            return
        if self._hooks.before is None:
            self._done(Outcome(None, ""))
            return
        self.waits_for = "[hooks] before"
        log.info("hook", hook="before", revision=self._target.name)
        order = Order(self._hooks.before, self._target, self._previous, self._hooks.timeout)
        try:
            self._command = Command(self._around.loop, self._around.children, order, self._over)
        except OSError as error:
            self._over(Outcome(f"it cannot be started: {error.strerror}", ""))

    def _over(self, outcome: Outcome) -> None:
        report("before", self._target, outcome)
        self._done(outcome)
