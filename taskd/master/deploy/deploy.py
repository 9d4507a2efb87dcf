"""A deploy, from the request to the exec (and its end in the new image, see ``handoff.adopt``).

Everything here can be undone until the exec: a refusal releases the daemon, and the old revision
serves on, unharmed, as often as one tries. One deploy at a time: another caller for the same
release joins it, for another release is told that one is under way.

A verdict is true: a deploy that was done is never told as refused, whatever its answer has grown
to.

Longer than 400 lines, since each phase has its step here, in order.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import taskd
from taskd import config, log
from taskd.errors import ConfigError, DeployRefused, Error
from taskd.master.deploy import hooks
from taskd.master.deploy.capacity import Capacity
from taskd.master.deploy.draining import Draining
from taskd.master.deploy.guard import Guard
from taskd.master.deploy.request import PLAINLY, How, resolve
from taskd.master.deploy.stages import Quiet, Stage, Stages
from taskd.master.fleet import Proofs, Recheck, Revision, Revisions
from taskd.master.loop import (
    Caller,
    Deadline,
    Gate,
    Life,
    LifeEvent,
    LifeState,
    Look,
    Loop,
    Notice,
    Storage,
)
from taskd.model.plan import Plan
from taskd.model.revision import LIVE
from taskd.model.table import after
from taskd.model.upgrade import PHASES, Phase, Step
from taskd.model.versions import is_older
from taskd.revision import release
from taskd.upgrade import steps
from taskd.upgrade.snapshot import Carried

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
"""Phases in which a deploy is given up when no client waits for it any more."""

HELD = frozenset({Phase.QUIESCING, Phase.EMPTYING, Phase.EXECING, Phase.ADOPTING})
"""Phases in which the daemon holds: nothing new is begun (see ``loop.life``)."""


class Deploy:
    """The one deploy under way, or none. ``refused`` and ``over`` are told of its end."""

    gate: Gate
    hand_over: Callable[[], None]
    """Become the new image. Comes back only by raising, with everything undone."""

    def __init__(
        self,
        loop: Loop,
        life: Life,
        config: config.Config,
        storage: Storage,
        revisions: Revisions,
        proofs: Proofs,
        recheck: Recheck,
        capacity: Capacity,
        stages: Stages,
        quiet: Quiet,
        draining: Draining,
    ) -> None:
        self._loop = loop
        self._life = life
        self._config = config
        self._storage = storage
        self._revisions = revisions
        self._proofs = proofs
        self._recheck = recheck
        self._capacity = capacity
        self._stages = stages
        self._quiet = quiet
        self._draining = draining
        self.phase = Phase.IDLE
        self._since = 0.0  # Unix seconds: of the phase
        self.callers: list[Caller] = []
        self.path = ""
        self.python = ""  # what the new image will run on
        self.config = config  # what it will serve with
        self.paused_at = 0.0
        self._how = PLAINLY
        self.plan: dict[str, Any] | None = None
        self.unfit: list[int] = []  # tasks that the target cannot take
        self.hook = ""  # what [hooks] before wrote
        self._stage: Stage | None = None
        self._guard = Guard(self._refuse_if_under_way)
        self._guarded = self._guard.around
        self.is_wished = False  # SIGHUP came meanwhile: one more is due
        self._deadline: Deadline | None = None
        self.refused: Notice[[]] = Notice()
        self.over: Notice[[]] = Notice()
        self._ask_look = Look(loop, "the deploy does not go on", self._guarded(self._look)).ask

    @property
    def is_under_way(self) -> bool:
        return self.phase is not Phase.IDLE

    @property
    def target(self) -> Revision:
        """The new revision. Known once it is proven."""
        assert self._revisions.target is not None
        return self._revisions.target

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
            settings, path = resolve(self._config.source, wanted)
        except (ConfigError, DeployRefused) as error:
            self._tell_refusal(callers, wanted or self._config.app.release, error)
            return
        if self.phase is not Phase.IDLE:
            self._join(path, callers, how)
            return
        if self._life.state is not LifeState.SERVING:
            self._tell_refusal(callers, path, DeployRefused("the daemon is starting or stopping"))
            return
        self._step(Step.BEGIN)
        self.callers, self._how = callers, how
        self.plan, self.unfit, self.hook = None, [], ""
        self.path, self.config = path, settings
        log.info("plan" if how.plan_only else "deploy", release=path)
        self._guarded(self._prove)()

    def _join(self, path: str, callers: list[Caller], how: How) -> None:
        if path == self.path and how == self._how:
            self.callers += callers
            return
        what = "plan" if self._how.plan_only else "deploy"
        why = f"a {what} of {self.path} is under way; try again when it is done"
        self._tell_refusal(callers, path, DeployRefused(why))

    def on_gone(self, client: int) -> None:
        """A client went away: if it alone waited for this deploy, the deploy is given up."""
        had_callers = bool(self.callers)
        self.callers = [caller for caller in self.callers if caller.client != client]
        if had_callers and not self.callers and self.phase in GIVE_UP:
            self.refuse(DeployRefused("who asked for it went away"))

    def on_stop(self) -> None:
        """The daemon stops: nothing is handed over any more."""
        if self.phase not in (Phase.IDLE, Phase.ADOPTING):
            self.refuse(DeployRefused("the daemon stops"))

    def under_way(self) -> dict[str, Any] | None:
        """The deploy for ``status``: its phase, since when, and what it waits for."""
        if self.phase is Phase.IDLE:
            return None
        waits = [self._stage.waits_for] if self._stage is not None else self._waits_for()
        return {
            "phase": self.phase.value,
            "since": self._since,
            "release": self.path,
            "waits_for": waits,
        }

    def export(self, phase: Phase, carried: Carried) -> dict[str, Any]:
        """For the snapshot, as it will be behind the exec. (``config``, ``path`` and ``python`` are
        what the new image then is.)"""
        return {
            "phase": phase.value,
            "target": self.target.number,
            "paused_at": self.paused_at,
            "callers": [list(caller) for caller in self.callers],
            "plan": self.plan,
            "unfit": self.unfit,
            "hook": carried.put(self.hook.encode()),
        }

    def restore(self, fields: dict[str, Any], hook: bytes) -> None:
        """What ``export`` of this version or of the one before has written."""
        self.phase = Phase(fields["phase"])
        self._revisions.target = self._revisions.by_number(fields["target"])
        self.paused_at = fields["paused_at"]
        self.callers = [Caller(*each) for each in fields["callers"]]
        self.plan, self.unfit, self.hook = fields["plan"], fields["unfit"], hook.decode()

    # ── prove, plan, try ─────────────────────────────────────────────────────────────────────

    def _prove(self) -> None:
        steps.reach("prove")
        self._capacity.check(self.config, self.path)
        within, done = self.config.daemon.prove_timeout, self._guarded(self._proven)
        back = self._how.goes_back
        self._proofs.begin(self.path, self.config.app, within, done, may_have_changed=back)

    def _proven(self, outcome: Revision | DeployRefused) -> None:
        if self.phase is not Phase.PROVING:  # refused meanwhile: the daemon stops
            if isinstance(outcome, Revision):
                self._proofs.reject(outcome)
            return
        if isinstance(outcome, DeployRefused):
            self.refuse(outcome)
            return
        self._revisions.target = outcome
        steps.reach("plan")
        self._step(Step.PROVEN)
        self._stage = self._stages.plan(outcome, self._guard, self._planned)

    def _planned(self, outcome: Plan | DeployRefused) -> None:
        if isinstance(outcome, DeployRefused):
            self.refuse(outcome)
            return
        self.plan, self.unfit = outcome.wire(), outcome.unfit
        for warning in outcome.warnings:
            log.warning(warning, revision=outcome.target)
        self.plan["warnings"] += self.target.warnings
        if self._how.plan_only:
            callers, self.callers = self.callers, []
            self._back_to_idle()
            for caller in callers:
                self.gate.reply(caller, {"plan": self.plan})
        elif outcome.held and not self._how.allow_held:
            self.refuse(DeployRefused(outcome.why_held()))
        else:
            self._step(Step.ACCEPTED)
            self._try(self.target.zygote.python)

    def _try(self, python: str) -> None:
        steps.reach("try")
        self.python = python
        try:
            self._stage = self._stages.try_out(self.target, python, self._guard, self._tried)
        except OSError as error:
            why = f"{self.target.name}: {python} cannot be started: {error.strerror}"
            self.refuse(DeployRefused(why))

    def _tried(self, error: DeployRefused | None) -> None:
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
        current = self._revisions.current
        previous = current.path if current is not None else ""
        self._stage = self._stages.before(
            self.config.hooks, self.target, previous, self._guard, self._hooked
        )

    def _is_tried_with_an_older_taskd(self) -> bool:
        """An old taskd must not keep its release from being deployed: the app's code runs on it
        all the same, and the daemon need not."""
        is_own = self.python == self.target.zygote.python != release.launcher()
        return is_own and is_older(self.target.taskd, taskd.__version__)

    def _warn(self, warning: str) -> None:
        """Log it, and tell the clients that get the plan."""
        assert self.plan is not None
        log.warning(warning, revision=self.target.name)
        self.plan["warnings"].append(warning)

    def _hooked(self, outcome: hooks.Outcome) -> None:
        if outcome.failure is not None:
            self.refuse(DeployRefused(hooks.told("before", self.target, outcome)))
            return
        self._stage, self.hook = None, outcome.output
        release.resolve(self.path)  # still there? The next start will need it
        self._within(LOOK_WITHIN, "its files could not be looked at again in time")
        may_change = bool(self.config.hooks.before)
        self._recheck.ask(self.target, may_change, self._guarded(self._rechecked))

    def _rechecked(self, what: str | None) -> None:
        """``what`` has become of the release's files; None: they are as they were."""
        if self.phase is not Phase.HOOKING:
            return
        if what is not None and self._how.goes_back and self.target.state in LIVE:
            self._warn(f"the files of {self.path} {what} since it was started; a restart runs them")
        elif what is not None:
            self.refuse(DeployRefused(_CHANGED.format(self.path, what)))
            return
        steps.reach("quiesce")
        self._step(Step.HOOKED)
        self._within(QUIESCE_WITHIN, "the workers being started did not come up in time")
        self._life.take(LifeEvent.HOLD)
        self._storage.writer.checkpoint()
        self._look()

    # ── quiesce ──────────────────────────────────────────────────────────────────────────────

    def _waits_for(self) -> list[str]:
        """What keeps the exec from being made; it is looked at whenever that may have changed."""
        if self.phase is Phase.PROVING:
            return ["the release's app, which is imported"]
        if self.phase is Phase.HOOKING:
            return ["a second look at the release's files"]
        if self.phase is Phase.QUIESCING:
            return self._quiet.waits_for()
        if self.phase is Phase.EMPTYING and self.gate.in_flight:
            return [f"requests: {self.gate.in_flight}"]
        return []

    def look(self) -> None:
        """Something that an exec may wait for is over."""
        if self.phase in (Phase.QUIESCING, Phase.EMPTYING):
            self._ask_look()

    def _look(self) -> None:
        """Forks and claims: once none is under way, stop reading the clients. Requests: once none
        is under way, go."""
        if self.phase is Phase.QUIESCING and not self._waits_for():
            steps.reach("empty")
            self._step(Step.QUIET)
            self._within(EMPTY_WITHIN, "the requests under way were not answered in time")
            self.paused_at = time.monotonic()
            self.gate.pause(True)
        if self.phase is Phase.EMPTYING and not self._waits_for():
            self._step(Step.EMPTY)
            self._cancel_deadline()
            self._loop.soon(self._exec)

    def _exec(self) -> None:
        for caller in self.callers:  # none is read any more, but one that left is noticed
            if self.gate.has_hung_up(caller):
                self.on_gone(caller.client)
        if self.phase is Phase.EXECING:
            self._guard.around(self.hand_over, EXEC_WITHIN)()

    def on_zygote_death(self, revision: Revision, _: int | None) -> None:
        if revision is self._revisions.target and revision.state not in LIVE:
            self.refuse(DeployRefused(f"{revision.name}: its zygote died during the deploy"))

    # ── the end ──────────────────────────────────────────────────────────────────────────────

    def refuse(self, error: DeployRefused) -> None:
        """Back to where the daemon was, with the reason."""
        callers, self.callers = self.callers, []
        was_plan = self._how.plan_only
        self._back_to_idle()
        if was_plan:
            self._answer(callers, error)
            return
        try:
            self._revisions.remember(self.path, str(error))
        finally:  # whatever is short just now: only here it is known which clients wait
            self._tell_refusal(callers, self.path, error)

    def _refuse_if_under_way(self, error: DeployRefused) -> None:
        if self.phase is not Phase.IDLE:  # else what failed came after a refusal
            self.refuse(error)

    def gave_back(self, error: DeployRefused) -> None:
        """In the old image again: the new one could not adopt. Like any refusal."""
        target = self._revisions.target
        self.path = target.path if target is not None else ""
        self._life.take(LifeEvent.GIVE_BACK)
        self.refuse(error)

    def _back_to_idle(self) -> None:
        is_held = self.phase in HELD
        self._step(Step.REFUSE)
        self._cancel_deadline()
        if self._stage is not None:
            self._stage.stop()
            self._stage = None
        target, self._revisions.target = self._revisions.target, None
        if target is not None:
            self._proofs.reject(target)
        self._proofs.abandon()
        if is_held:
            self._life.take(LifeEvent.RELEASE)
            self.gate.pause(False)
        self.over()
        if self.is_wished:
            self._loop.soon(self.wish)

    def confirmed(self, previous: str | None) -> None:
        """In the new master: the deploy is done; tell the callers, and let the old drain."""
        target, self._revisions.target = self.target, None
        self._step(Step.CONFIRM)
        pause = time.monotonic() - self.paused_at
        reply = {
            "revision": target.name,
            "previous": previous,
            "pause": pause,
            "plan": self.plan,
            "hook": self.hook,
        }
        log.info("deployed", revision=target.name, pause=f"{pause * 1000:.0f}ms")
        self._life.note = f"deployed {target.name}"
        callers, self.callers = self.callers, []
        for caller in callers:
            self.gate.reply(caller, reply, short=reply | {"plan": None, "hook": ""})
        self._draining.let_old_ones_leave(target, self.unfit)

    def _tell_refusal(self, callers: list[Caller], path: str, error: Error) -> None:
        log.error("deploy refused", release=path, why=str(error))
        self._life.note = f"last deploy refused: {error}"
        self.refused()
        self._answer(callers, error)

    def _answer(self, callers: list[Caller], error: Error) -> None:
        for caller in callers:
            self.gate.refuse(caller, DeployRefused(str(error)))

    # ── phases ───────────────────────────────────────────────────────────────────────────────

    def _step(self, step: Step) -> None:
        self.phase = after(PHASES, self.phase, step)
        self._since = time.time()

    def _within(self, seconds: float, why: str) -> None:
        self._cancel_deadline()
        refuse = lambda: self.refuse(DeployRefused(f"{why} ({seconds:.0f} s)"))  # noqa: E731
        self._deadline = Deadline(self._loop, seconds, self._quiet.pids, refuse)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
