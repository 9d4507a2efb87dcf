"""A deploy, from the request to the exec (and its end in the new image, see ``adopt``).

Everything here can be undone until the exec: a refusal thaws the master, and the old revision
serves on, unharmed, as often as one tries. One deploy at a time: another caller for the same
release joins it, for another release is told that one is under way.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import taskd
from taskd import config, log
from taskd.errors import ConfigError, DeployRefused, Error
from taskd.master.deploy import capacity, hooks, leaving, verdict
from taskd.master.deploy.guard import Boundary
from taskd.master.deploy.plan_questions import Planning
from taskd.master.deploy.trial import Trial
from taskd.master.deploy.verdict import PLAINLY, Caller, How
from taskd.master.fleet.revision import Revision
from taskd.master.loop.deadline import Deadline
from taskd.model.plan import Plan
from taskd.model.revision import LIVE
from taskd.model.table import after
from taskd.model.upgrade import PHASES, Phase, Step
from taskd.model.versions import is_older
from taskd.model.worker import WorkerState
from taskd.revision import release
from taskd.upgrade import steps

if TYPE_CHECKING:
    from taskd.master.master import Master

EXEC_WITHIN = 30.0
"""Seconds for the last one: the store commits and closes, and the snapshot is written."""

LOOK_WITHIN = 60.0
"""Seconds to look at the release's files once more, before it is too late."""

QUIESCE_WITHIN = 20.0
"""Seconds that forks and claims under way have to finish."""

EMPTY_WITHIN = 10.0
"""Seconds that the requests under way have to be answered."""


_CHANGED = (
    "the files of {} {} while it was being deployed. A release must be whole before it is deployed,"
    " and stay as it is: build it elsewhere and move it there"
)

GIVE_UP = frozenset(Phase) - {Phase.IDLE, Phase.ADOPTING}
"""Phases in which a deploy is given up when nobody waits for it any more."""


class Deploy:
    """The one deploy under way, or none."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self.phase = Phase.IDLE
        self.callers: list[Caller] = []
        self.target: Revision | None = None
        self.path = ""
        self.python = ""  # what the new image will run on
        self.config = master.config
        self.paused_at = 0.0
        self.how = PLAINLY
        self.plan: dict[str, Any] | None = None
        self.unfit: list[int] = []  # tasks that the target cannot take
        self.hook = ""  # what [hooks] before wrote
        self._under_way: Planning | Trial | hooks.Before | None = None
        self.bounded = Boundary(self._refuse_if_under_way).around
        self.is_wished = False  # SIGHUP came meanwhile: one more is due
        self._deadline: Deadline | None = None

    # ── the request ──────────────────────────────────────────────────────────────────────────

    def wish(self) -> None:
        """SIGHUP: deploy what ``[app] release`` points to; after the one under way, if there is
        one, since it may be another release by now."""
        self.is_wished = self.phase is not Phase.IDLE
        if not self.is_wished:
            self.begin(None, None)

    def begin(self, wanted: str | None, caller: Caller | None, how: How = PLAINLY) -> None:
        """Deploy the release at ``wanted`` (None: what ``[app] release`` points to now)."""
        callers = [caller] if caller else []
        try:
            settings, path = self._resolve(wanted)
        except (ConfigError, DeployRefused) as error:
            self._answer_refusal(callers, wanted or self._master.config.app.release, error)
            return
        if self.phase is not Phase.IDLE:
            self._join(path, callers, how)
            return
        if self._master.stopping or not self._master.is_serving:
            self._answer_refusal(callers, path, DeployRefused("the daemon is starting or stopping"))
            return
        self._step(Step.BEGIN)
        self.callers, self.how = callers, how
        self.plan, self.unfit, self.hook = None, [], ""
        self.path, self.config = path, settings
        log.info("plan" if how.plan_only else "deploy", release=path)
        self.bounded(self._prove)()

    def _prove(self) -> None:
        steps.reach("prove")
        capacity.check(self._master, self.config, self.path)
        within, done = self.config.daemon.prove_timeout, self.bounded(self._proven)
        back = self.how.goes_back
        self._master.revisions.prove(self.path, self.config.app, within, done, living=back)

    def _resolve(self, wanted: str | None) -> tuple[config.Config, str]:
        """The configuration as it is now, and the real path to deploy."""
        try:
            settings = config.load(self._master.config.source)
            path = release.resolve(wanted or settings.app.release)
            release.interpreter(path, settings.app.python)
        except (OSError, ValueError) as error:  # out of descriptors, say, or a path with a NUL
            raise DeployRefused(f"cannot look at the release: {error}") from error
        return settings, path

    def _join(self, path: str, callers: list[Caller], how: How) -> None:
        if path == self.path and how == self.how:
            self.callers += callers
            return
        what = "plan" if self.how.plan_only else "deploy"
        why = f"a {what} of {self.path} is under way; try again when it is done"
        self._answer_refusal(callers, path, DeployRefused(why))

    def on_gone(self, client: int) -> None:
        """A client went away: if it alone waited for this deploy, the deploy is given up."""
        before = len(self.callers)
        self.callers = [caller for caller in self.callers if caller.client != client]
        if before and not self.callers and self.phase in GIVE_UP:
            self.refuse(DeployRefused("who asked for it went away"))

    def on_stop(self) -> None:
        """The daemon stops: nothing is handed over any more."""
        if self.phase not in (Phase.IDLE, Phase.ADOPTING):
            self.refuse(DeployRefused("the daemon stops"))

    # ── prove, plan, try ─────────────────────────────────────────────────────────────────────

    def _proven(self, outcome: Revision | DeployRefused) -> None:
        if self.phase is not Phase.PROVING:  # refused meanwhile: the daemon stops
            if isinstance(outcome, Revision):
                self._master.revisions.reject(outcome)
            return
        if isinstance(outcome, DeployRefused):
            self.refuse(outcome)
            return
        self.target = outcome
        steps.reach("plan")
        self._step(Step.PROVEN)
        self._under_way = Planning(self._master, outcome, self.bounded(self._planned))

    def _planned(self, outcome: Plan | DeployRefused) -> None:
        if isinstance(outcome, DeployRefused):
            self.refuse(outcome)
            return
        self.plan, self.unfit = outcome.wire(), outcome.unfit
        for warning in outcome.warnings:
            log.warning(warning, revision=outcome.target)
        assert self.target is not None
        self.plan["warnings"] += self.target.warnings
        if self.how.plan_only:
            self._stop_at_the_plan()
        elif outcome.held and not self.how.allow_held:
            self.refuse(DeployRefused(outcome.why_held()))
        else:
            assert self.target is not None
            self._step(Step.ACCEPTED)
            self._try(self.target.python)

    def _stop_at_the_plan(self) -> None:
        callers, self.callers = self.callers, []
        self._back_to_idle()
        verdict.tell_plan(self._master, callers, self.plan)

    def _try(self, python: str) -> None:
        assert self.target is not None
        steps.reach("try")
        self.python = python
        try:
            self._under_way = Trial(self._master, self.target, python, self.bounded(self._tried))
        except OSError as error:
            why = f"{self.target.name}: {python} cannot be started: {error.strerror}"
            self.refuse(DeployRefused(why))

    def _tried(self, error: DeployRefused | None) -> None:
        assert self.target is not None
        if error is not None and self._is_tried_with_an_older_taskd():
            log.info("not the daemon's next taskd", why=str(error))
            self._warn(
                f"{self.target.name} brings taskd {self.target.taskd}, which is too old to take "
                f"over: the daemon goes on with the taskd of {release.launcher()}"
            )
            self._try(release.launcher())
            return
        if error is not None:
            self.refuse(error)
            return
        steps.reach("hook")
        self._step(Step.TRIED)
        done = self.bounded(self._hooked)
        self._under_way = hooks.Before(self._master, self.config.hooks, self.target, done)

    def _is_tried_with_an_older_taskd(self) -> bool:
        """An old taskd must not keep its release from being deployed: the app's code runs on it
        all the same, and the daemon need not."""
        assert self.target is not None
        is_own = self.python == self.target.python != release.launcher()
        return is_own and is_older(self.target.taskd, taskd.__version__)

    def _warn(self, warning: str) -> None:
        """Log it, and tell whoever gets the plan."""
        assert self.target is not None and self.plan is not None
        log.warning(warning, revision=self.target.name)
        self.plan["warnings"].append(warning)

    def _hooked(self, outcome: hooks.Outcome) -> None:
        assert self.target is not None
        if outcome.failure is not None:
            self.refuse(DeployRefused(hooks.told("before", self.target, outcome)))
            return
        self._under_way, self.hook = None, outcome.output
        release.resolve(self.path)  # still there? The next start will need it
        self._within(LOOK_WITHIN, "its files could not be looked at again in time")
        may_change = bool(self.config.hooks.before)
        self._master.revisions.recheck.ask(self.target, may_change, self.bounded(self._rechecked))

    def _rechecked(self, what: str | None) -> None:
        """``what`` has become of the release's files, if anything."""
        if self.phase is not Phase.HOOKING:
            return
        assert self.target is not None
        if what is not None and self.how.goes_back and self.target.state in LIVE:
            self._warn(f"the files of {self.path} {what} since it was started; a restart runs them")
        elif what is not None:
            self.refuse(DeployRefused(_CHANGED.format(self.path, what)))
            return
        steps.reach("quiesce")
        self._step(Step.HOOKED)
        self._within(QUIESCE_WITHIN, "the workers being started did not come up in time")
        self._master.is_frozen = True
        self._master.writer.checkpoint()
        self.on_fork_answered()

    # ── quiesce ──────────────────────────────────────────────────────────────────────────────

    def on_fork_answered(self) -> None:
        """Forks and claims: once none is under way, stop reading the clients.

        Called whenever one of either is answered.
        """
        if self.phase is Phase.QUIESCING:
            self.bounded(self._quieted)()

    def _quieted(self) -> None:
        claiming = any(a.attempt == 0 for a in self._master.attempts.all())
        if claiming or self._master.workers.forks_open or self._master.helpers:
            return
        steps.reach("empty")
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
        for caller in list(self.callers):  # none is read any more, but one that left is noticed
            client = self._master.clients.get(caller.client)
            if client is not None and client.wire.is_hung_up:
                self.on_gone(caller.client)
        if self.phase is Phase.EXECING:
            from taskd.handoff import old

            exec_new_image = lambda: old.exec_new_image(self._master)  # noqa: E731
            self.bounded(exec_new_image, EXEC_WITHIN)()  # comes back only if it failed, and undone

    def on_target_lost(self, revision: Revision) -> None:
        """The zygote of a revision that serves nothing yet has died."""
        if self.phase is not Phase.IDLE and revision is self.target:
            self.refuse(DeployRefused(f"{revision.name}: its zygote died during the deploy"))

    # ── the end ──────────────────────────────────────────────────────────────────────────────

    def refuse(self, error: DeployRefused) -> None:
        """Back to where we were, with the reason."""
        callers, self.callers = self.callers, []
        was_plan = self.how.plan_only
        self._back_to_idle()
        if was_plan:
            verdict.refuse(self._master, callers, error)
            return
        try:
            self._master.revisions.remember(self.path, str(error))
        finally:  # whatever is short just now: nobody else knows any more who waits
            self._answer_refusal(callers, self.path, error)

    def _refuse_if_under_way(self, error: DeployRefused) -> None:
        if self.phase is not Phase.IDLE:  # else what failed came after a refusal
            self.refuse(error)

    def gave_back(self, error: DeployRefused) -> None:
        """In the old image again: the new one could not adopt. Like any refusal, and thawed."""
        self.path = self.target.path if self.target is not None else ""
        self._master.is_frozen = True
        self.refuse(error)

    def _back_to_idle(self) -> None:
        self._step(Step.REFUSE)
        self._cancel_deadline()
        if self._under_way is not None:
            self._under_way.stop()
            self._under_way = None
        target, self.target = self.target, None
        if target is not None and target.state not in LIVE:
            self._master.revisions.reject(target)
        self._master.revisions.abandon_proofs()
        if self._master.is_frozen:
            self._master.is_frozen = False
            self._master.clients.pause(False)
            self._master.dispatch.wake_due()
            self._master.dispatch.kick()
        if self.is_wished:
            self._master.loop.soon(self.wish)

    def confirmed(self, previous: str | None) -> None:
        """In the new master: the deploy is done; tell whoever waits, and let the old drain."""
        assert self.target is not None
        self._step(Step.CONFIRM)
        pause = time.monotonic() - self.paused_at
        reply = {
            "revision": self.target.name,
            "previous": previous,
            "pause": pause,
            "plan": self.plan,
            "hook": self.hook,
        }
        log.info("deployed", revision=self.target.name, pause=f"{pause * 1000:.0f}ms")
        self._master.note = f"deployed {self.target.name}"
        callers, self.callers = self.callers, []
        verdict.tell(self._master, callers, reply)
        target, self.target = self.target, None
        leaving.let_old_ones_leave(self._master, target, self.unfit)

    def _answer_refusal(self, callers: list[Caller], path: str, error: Error) -> None:
        log.error("deploy refused", release=path, why=str(error))
        self._master.note = f"last deploy refused: {error}"
        self._master.standing.say()
        verdict.refuse(self._master, callers, error)

    # ── phases ───────────────────────────────────────────────────────────────────────────────

    def _step(self, step: Step) -> None:
        self.phase = after(PHASES, self.phase, step)

    def _within(self, seconds: float, why: str) -> None:
        self._cancel_deadline()
        refuse = lambda: self.refuse(DeployRefused(f"{why} ({seconds:.0f} s)"))  # noqa: E731
        self._deadline = Deadline(self._master.loop, seconds, self._waited_for, refuse)

    def _waited_for(self) -> list[int]:
        """Processes that an answer may have to come from."""
        workers = [w.pid for w in self._master.workers if w.state is WorkerState.STARTING]
        return [*filter(None, workers), *(r.pid for r in self._master.revisions if r.pid)]

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
