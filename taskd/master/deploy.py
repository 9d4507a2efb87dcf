"""A deploy, from the request to the exec (and its end in the new image, see ``adopt``).

Everything here can be undone until the exec: a refusal thaws the master, and the old revision
serves on, unharmed, as often as one tries. One deploy at a time: another caller for the same
release joins it, for another release is told that one is under way.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from taskd import config, log
from taskd.errors import ConfigError, DeployRefused, Error
from taskd.master import handoff
from taskd.master.loop import Timer
from taskd.master.revisions import Revision
from taskd.model.revision import LIVE
from taskd.model.routing import can_run
from taskd.model.table import after
from taskd.model.task import OnDeploy
from taskd.model.upgrade import PHASES, Phase, Step
from taskd.revision import release

if TYPE_CHECKING:
    from taskd.master.clients import Client
    from taskd.master.core import Master

PROVE_WITHIN = 60.0
"""Seconds a new release has to import its app."""

QUIESCE_WITHIN = 20.0
"""Seconds that forks and claims under way have to finish."""

EMPTY_WITHIN = 10.0
"""Seconds that the requests under way have to be answered."""

PINNED = 2
"""Interruptions in a row without progress, after which a task is left to finish where it is."""


class Caller:
    """Who waits for the verdict: a client's request, by names that survive an exec."""

    __slots__ = ("client", "request")

    def __init__(self, client: int, request: int) -> None:
        self.client = client
        self.request = request


class Deploy:
    """The one deploy under way, or none."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self.phase = Phase.IDLE
        self.callers: list[Caller] = []
        self.target: Revision | None = None
        self.path = ""
        self.config = master.config
        self.paused_at = 0.0
        self._deadline: Timer | None = None

    # ── the request ──────────────────────────────────────────────────────────────────────────

    def begin(self, wanted: str | None, caller: Caller | None) -> None:
        """Deploy the release at ``wanted`` (None: what ``[app] release`` points to now)."""
        try:
            settings, path = self._resolve(wanted)
        except (ConfigError, DeployRefused) as error:
            self._answer_refusal([caller] if caller else [], error)
            return
        if self.phase is not Phase.IDLE:
            self._join(path, caller)
            return
        if self._master.stopping or not self._master.is_serving:
            self._answer_refusal([caller] if caller else [], DeployRefused("the daemon stops"))
            return
        self._step(Step.BEGIN)
        self.callers = [caller] if caller else []
        self.path, self.config = path, settings
        log.info("deploy", release=path)
        try:
            self._check_cap(settings)
        except DeployRefused as error:
            self.refuse(error)
        else:
            self._master.revisions.prove(path, settings.app, PROVE_WITHIN, self._proven)

    def _resolve(self, wanted: str | None) -> tuple[config.Config, str]:
        """The configuration as it is now, and the real path to deploy."""
        settings = config.load(self._master.config.source)
        path = release.resolve(wanted or settings.app.release)
        release.interpreter(path, settings.app.python)
        return settings, path

    def _join(self, path: str, caller: Caller | None) -> None:
        if path == self.path:
            self.callers += [caller] if caller else []
            return
        why = f"a deploy of {self.path} is under way; try again when it is done"
        self._answer_refusal([caller] if caller else [], DeployRefused(why))

    def _check_cap(self, settings: config.Config) -> None:
        live = [r for r in self._master.revisions if r.state in LIVE]
        if len(live) < settings.app.max_revisions or any(r.path == self.path for r in live):
            return
        held = ", ".join(
            f"{r.name} ({sum(w.running is not None for w in self._master.workers.of(r))} running)"
            for r in live
        )
        raise DeployRefused(
            f"{len(live)} revisions are alive, and [app] max_revisions is "
            f"{settings.app.max_revisions}: {held}. Wait until one has drained, or cancel its tasks"
        )

    # ── prove and plan ───────────────────────────────────────────────────────────────────────

    def _proven(self, outcome: Revision | DeployRefused) -> None:
        if self.phase is not Phase.PROVING:  # refused meanwhile: the daemon stops
            if isinstance(outcome, Revision):
                self._master.revisions.reject(outcome)
            return
        if isinstance(outcome, DeployRefused):
            self.refuse(outcome)
            return
        self.target = outcome
        try:
            self._check_names(outcome)
        except DeployRefused as error:
            self.refuse(error)
            return
        self._step(Step.PROVEN)
        self._within(QUIESCE_WITHIN, "the workers being started did not come up in time")
        self._master.is_frozen = True
        self._master.writer.checkpoint()
        self.on_fork_answered()

    def _check_names(self, revision: Revision) -> None:
        """Every waiting and running task must be known to the new revision."""
        needed = {group.name for group in self._master.reader.groups() if group.waiting}
        needed |= {attempt.name for attempt in self._master.attempts.all()}
        missing = sorted(needed - revision.tasks.keys())
        if missing:
            names = ", ".join(missing)
            raise DeployRefused(
                f"{revision.name} does not know these tasks, which wait or run: {names}. "
                "Deploy a release that has them, or cancel those tasks"
            )

    # ── quiesce ──────────────────────────────────────────────────────────────────────────────

    def on_fork_answered(self) -> None:
        """Forks and claims: once none is under way, stop reading the clients.

        Called whenever one of either is answered.
        """
        if self.phase is not Phase.QUIESCING:
            return
        claiming = any(a.attempt == 0 for a in self._master.attempts.all())
        if claiming or self._master.workers.forks_open:
            return
        self._step(Step.QUIET)
        self._within(EMPTY_WITHIN, "the requests under way were not answered in time")
        self.paused_at = time.monotonic()
        self._master.clients.pause(True)
        self.on_answered()

    def on_answered(self) -> None:
        """Requests: once none is under way, go."""
        if self.phase is not Phase.EMPTYING or self._master.clients.in_flight:
            return
        self._step(Step.EMPTY)
        self._cancel_deadline()
        self._master.loop.soon(self._exec)

    def _exec(self) -> None:
        if self.phase is not Phase.EXECING:
            return
        try:
            handoff.exec_new_image(self._master)  # returns only by raising
        except Exception as error:  # the boundary: everything is undone, so we can serve on
            what = str(error) if isinstance(error, Error | OSError) else repr(error)
            self.refuse(DeployRefused(f"the handoff failed before the exec: {what}"))

    def on_target_lost(self, revision: Revision) -> None:
        """The zygote of a revision that serves nothing yet has died."""
        if self.phase is not Phase.IDLE and revision is self.target:
            self.refuse(DeployRefused(f"{revision.name}: its zygote died during the deploy"))

    # ── the end ──────────────────────────────────────────────────────────────────────────────

    def refuse(self, error: DeployRefused) -> None:
        """Back to where we were, with the reason."""
        self._step(Step.REFUSE)
        self._cancel_deadline()
        target, self.target = self.target, None
        if target is not None and target.state not in LIVE:
            self._master.revisions.reject(target)
        self._master.revisions.tidy()
        callers, self.callers = self.callers, []
        self._answer_refusal(callers, error)
        if self._master.is_frozen:
            self._master.is_frozen = False
            self._master.clients.pause(False)
            self._master.dispatch.wake_due()
            self._master.dispatch.kick()

    def confirmed(self, previous: str | None) -> None:
        """In the new master: the deploy is done; tell whoever waits, and let the old drain."""
        assert self.target is not None
        self.phase = after(PHASES, self.phase, Step.CONFIRM)
        pause = time.monotonic() - self.paused_at
        reply = {"revision": self.target.name, "previous": previous, "pause": pause}
        log.info("deployed", revision=self.target.name, pause=f"{pause * 1000:.0f}ms")
        self._master.note = f"deployed {self.target.name}"
        callers, self.callers = self.callers, []
        for caller in callers:
            client = self._master.clients.get(caller.client)
            if client is not None:
                client.reply(caller.request, reply)
        target, self.target = self.target, None
        self._let_old_ones_leave(target)

    def _let_old_ones_leave(self, target: Revision) -> None:
        """Idle old workers go; tasks that move at a checkpoint are asked to."""
        self._master.workers.retire_idle(keep=target)
        for worker in self._master.workers:
            running = worker.running
            if running is None or worker.revision is target or running.attempt == 0:
                continue
            if running.on_deploy != OnDeploy.CHECKPOINT.value:
                continue
            row = self._master.reader.task(running.task)
            if row is None or row.budgets.interruptions >= PINNED:
                continue
            saved_by = worker.revision.tasks[running.name]["version"]
            if can_run(target.tasks, running.name, saved_by) is None:
                self._master.attempts.ask(running.task, "leave", f"deploy of {target.name}")

    def _answer_refusal(self, callers: list[Caller], error: Error) -> None:
        log.error("deploy refused", why=str(error))
        self._master.note = f"last deploy refused: {error}"
        for caller in callers:
            client: Client | None = self._master.clients.get(caller.client)
            if client is not None:
                client.refuse(caller.request, DeployRefused(str(error)))

    # ── phases ───────────────────────────────────────────────────────────────────────────────

    def _step(self, step: Step) -> None:
        self.phase = after(PHASES, self.phase, step)

    def _within(self, seconds: float, why: str) -> None:
        self._cancel_deadline()
        self._deadline = self._master.loop.after(
            seconds, lambda: self.refuse(DeployRefused(f"{why} ({seconds:.0f} s)"))
        )

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
