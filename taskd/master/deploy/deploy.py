"""A deploy, from the request to the exec (and its end in the new image, see ``handoff.adopt``).

Everything here can be undone until the exec: a refusal releases the daemon, and the old revision
serves on as before. A refused deploy may be repeated as often as the operator likes. There is one
deploy at a time: a client that asks for the same release joins it, one that asks for another
release is refused.

A deploy that was done is never reported as refused, even if the answer does not fit in a frame.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import taskd
from taskd import config, log
from taskd.errors import ConfigError, DeployRefused, Error
from taskd.master.deploy import hooks
from taskd.master.deploy.before import Before, Surroundings
from taskd.master.deploy.capacity import Capacity
from taskd.master.deploy.draining import Draining
from taskd.master.deploy.guard import EXEC_WITHIN, Guard
from taskd.master.deploy.plan_questions import Planning, Sources
from taskd.master.deploy.progress import EMPTY_WITHIN, HELD, LOOK_WITHIN, QUIESCE_WITHIN, Progress
from taskd.master.deploy.request import PLAINLY, How, changed, resolve, unknown_keys
from taskd.master.deploy.trial import Means, Trial
from taskd.master.fleet import Proofs, Recheck, Revision, Revisions
from taskd.master.loop import Caller, Gate, Life, LifeEvent, LifeState, Look, Loop, Notice, Storage
from taskd.model.plan import Plan
from taskd.model.revision import LIVE
from taskd.model.routing import is_older
from taskd.model.upgrade import Phase, Step
from taskd.record import Record
from taskd.revision import release
from taskd.upgrade import steps
from taskd.upgrade.snapshot import Carried


class Stages(Record):
    """What the plan, the trial and ``[hooks] before`` are made with. ``trial`` is called when a
    trial begins: the snapshot function in it is set later than this record is made."""

    plan: Sources
    trial: Callable[[], Means]
    hook: Surroundings


class Deploy:
    """The one deploy under way, or none. ``refused`` and ``over`` are told of its end."""

    gate: Gate
    hand_over: Callable[[], None]
    """Become the new image. Returns only by raising, with everything undone."""

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
        progress: Progress,
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
        self._draining = draining
        self.progress = progress
        self.callers: list[Caller] = []
        self.path = ""
        self.python = ""  # what the new image will run on
        self.config = config  # what it will serve with
        self.paused_at = 0.0
        self._how = PLAINLY
        self._warnings: list[str] = []  # about what was read
        self.settings = ""  # what the target is proved with, for ``confirmed``
        self.plan: dict[str, Any] | None = None
        self.unfit: list[int] = []  # tasks that the target cannot take
        self.hook = ""  # what [hooks] before wrote
        self._guard = Guard(self.refuse)
        self._guarded = self._guard.around
        self.is_wished = False  # SIGHUP came meanwhile: one more deploy is due
        self.refused: Notice[[]] = Notice()
        self.over: Notice[[]] = Notice()
        self._ask_look = Look(loop, "the deploy does not go on", self._guarded(self._look)).ask

    @property
    def target(self) -> Revision:
        """The new revision. It is known once it is proven."""
        assert self._revisions.target is not None
        return self._revisions.target

    # ── the request ──────────────────────────────────────────────────────────────────────────

    def wish(self) -> None:
        """SIGHUP: deploy what ``[app] release`` points to. If a deploy is under way, a second one
        follows it, since the link may point to another release by then."""
        self.is_wished = self.progress.phase is not Phase.IDLE
        if not self.is_wished:
            self.begin(None, None)

    def begin(self, wanted: str | None, caller: Caller | None, how: How = PLAINLY) -> None:
        """Deploy the release at ``wanted`` (None: what ``[app] release`` points to now)."""
        callers, progress = [caller] if caller else [], self.progress
        try:
            settings, path, warnings = resolve(self._config, self._revisions, wanted, how)
        except (ConfigError, DeployRefused) as error:
            self._tell_refusal(callers, wanted or self._config.app.release, error)
            return
        if progress.phase is not Phase.IDLE:
            if (path, how, settings.app) == (self.path, self._how, self.config.app):
                self.callers += callers
                return
            what = "plan" if self._how.plan_only else "deploy"
            why = f"a {what} of {self.path} is under way; try again when it is done"
            self._tell_refusal(callers, path, DeployRefused(why))
            return
        if self._life.state is not LifeState.SERVING:
            self._tell_refusal(callers, path, DeployRefused("the daemon is starting or stopping"))
            return
        progress.step(Step.BEGIN)
        self.callers, self._how = callers, how
        self.plan, self.unfit, self.hook = None, [], ""
        self.path, self.config, self._warnings = path, settings, warnings
        log.info("plan" if how.plan_only else "deploy", release=path)
        self._guarded(self._prove)()

    def on_gone(self, client: int) -> None:
        """A client went away. If no other client waits for this deploy, the deploy is given up."""
        had_callers = bool(self.callers)
        self.callers = [caller for caller in self.callers if caller.client != client]
        if had_callers and not self.callers and self.progress.phase is not Phase.ADOPTING:
            self.refuse(DeployRefused("who asked for it went away"))

    def on_stop(self) -> None:
        """The daemon stops: the deploy under way is refused."""
        if self.progress.phase is not Phase.ADOPTING:
            self.refuse(DeployRefused("the daemon stops"))

    def under_way(self) -> dict[str, Any] | None:
        """For ``status``: what ``Progress.told`` says, and the release's path."""
        found = self.progress.told()
        return None if found is None else found | {"release": self.path}

    def export(self, phase: Phase, carried: Carried) -> dict[str, Any]:
        """The fields for the snapshot; ``phase``: the one after the exec. ``config``, ``path`` and
        ``python`` are not among them: the new image runs with them."""
        return {
            "phase": phase.value,
            "target": self.target.number,
            "paused_at": self.paused_at,
            "callers": [list(caller) for caller in self.callers],
            "plan": self.plan,
            "unfit": self.unfit,
            "hook": carried.put(self.hook.encode()),
            "settings": self.settings,
        }

    def restore(self, fields: dict[str, Any], hook: bytes) -> None:
        """Take the fields that ``export`` of this version or the one before has written."""
        self.progress.phase = Phase(fields["phase"])
        self._revisions.target = self._revisions.by_number(fields["target"])
        self.paused_at = fields["paused_at"]
        self.callers = [Caller(*each) for each in fields["callers"]]
        self.plan, self.unfit, self.hook = fields["plan"], fields["unfit"], hook.decode()
        self.settings = fields.get("settings", "")  # 0.2 keeps none

    # ── prove, plan, try ─────────────────────────────────────────────────────────────────────

    def _prove(self) -> None:
        steps.reach("prove")
        self._capacity.check(self.config, self.path)
        within, done = self.config.daemon.prove_timeout, self._guarded(self._proven)
        self._proofs.begin(
            self.path, self.config.app, within, done, may_have_changed=self._how.goes_back
        )

    def _proven(self, outcome: Revision | DeployRefused) -> None:
        if self.progress.phase is not Phase.PROVING:  # refused meanwhile: the daemon stops
            if isinstance(outcome, Revision):
                self._proofs.reject(outcome)
            return
        if isinstance(outcome, DeployRefused):
            self.refuse(outcome)
            return
        self._revisions.target = outcome
        steps.reach("plan")
        self.progress.step(Step.PROVEN)
        done = self._guarded(self._planned)
        self.progress.stage = Planning(self._stages.plan, outcome, self._guard, done)

    def _planned(self, outcome: Plan | DeployRefused) -> None:
        if isinstance(outcome, DeployRefused):
            self.refuse(outcome)
            return
        self.plan, self.unfit = outcome.wire(), outcome.unfit
        more = [*self._warnings, *unknown_keys(self.config, self.target)]
        for warning in (*outcome.warnings, *more):
            log.warning(warning, revision=outcome.target)
        self.plan["warnings"] += [*more, *self.target.warnings]
        self.plan["environment"] = self._revisions.changes(self.target)
        if self._how.plan_only:
            callers, self.callers = self.callers, []
            self._back_to_idle()
            for caller in callers:
                self.gate.reply(caller, {"plan": self.plan})
        elif outcome.held and not self._how.allow_held:
            self.refuse(DeployRefused(outcome.why_held()))
        else:
            self.progress.step(Step.ACCEPTED)
            self._try(self.target.zygote.python)

    def _try(self, python: str) -> None:
        steps.reach("try")
        self.python = python
        try:
            means, done = self._stages.trial(), self._guarded(self._tried)
            self.progress.stage = Trial(means, self.target, python, self._guard, done)
        except OSError as error:
            why = f"{self.target.name}: {python} cannot be started: {error.strerror}"
            self.refuse(DeployRefused(why))

    def _tried(self, error: DeployRefused | None) -> None:
        is_own = self.python == self.target.zygote.python != release.launcher()
        if error is not None and is_own and is_older(self.target.taskd, taskd.__version__):
            # The app's code runs on its old taskd all the same, and the daemon need not.
            log.info("not the daemon's next taskd", why=str(error))
            self._warn(
                f"{self.target.name} brings taskd {self.target.taskd}, which is too old to take "
                f"over: the daemon goes on with the taskd of {release.launcher()}"
            )
            self._try(release.launcher())
            return
        if error is not None:
            unknown = unknown_keys(self.config, self.target)
            self.refuse(DeployRefused(". ".join([str(error), *unknown])))
            return
        steps.reach("hook")
        self.progress.step(Step.TRIED)
        current = self._revisions.current
        previous = current.path if current is not None else ""
        done = self._guarded(self._hooked)
        self.progress.stage = Before(
            self._stages.hook, self.config.hooks, self.target, previous, done
        )

    def _warn(self, warning: str) -> None:
        """Log the warning, and add it to the plan that clients get."""
        assert self.plan is not None
        log.warning(warning, revision=self.target.name)
        self.plan["warnings"].append(warning)

    def _hooked(self, outcome: hooks.Outcome) -> None:
        if outcome.failure is not None:
            self.refuse(DeployRefused(hooks.told("before", self.target, outcome)))
            return
        self.progress.stage, self.hook = None, outcome.output
        release.resolve(self.path)  # raises if it is gone: the next start will need it
        why = "its files could not be looked at again in time"
        self.progress.within(LOOK_WITHIN, why, self.refuse)
        self._recheck.ask(
            self.target, bool(self.config.hooks.before), self._guarded(self._rechecked)
        )

    def _rechecked(self, what: str | None) -> None:
        """``what`` has happened to the release's files; None: they are as they were."""
        if self.progress.phase is not Phase.HOOKING:
            return
        if what is not None and self._how.goes_back and self.target.state in LIVE:
            self._warn(f"the files of {self.path} {what} since it was started; a restart runs them")
        elif what is not None:
            self.refuse(changed(self.path, what))
            return
        self.settings = self._revisions.keep(self.target)
        steps.reach("quiesce")
        self.progress.step(Step.HOOKED)
        self._life.take(LifeEvent.HOLD)  # at once: a refusal from here on releases the daemon
        why = "the workers being started did not come up in time"
        self.progress.within(QUIESCE_WITHIN, why, self.refuse)
        self._storage.writer.checkpoint()
        self._look()

    # ── quiesce ──────────────────────────────────────────────────────────────────────────────

    def look(self) -> None:
        """Called whenever a fork, claim, command or request is over: an exec may wait for it."""
        if self.progress.phase in (Phase.QUIESCING, Phase.EMPTYING):
            self._ask_look()

    def _look(self) -> None:
        """Once no fork, claim or command is under way, stop reading the clients. Once no request
        is under way either, exec."""
        progress = self.progress
        if progress.phase is Phase.QUIESCING and not progress.waits_for():
            steps.reach("empty")
            progress.step(Step.QUIET)
            why = "the requests under way were not answered in time"
            progress.within(EMPTY_WITHIN, why, self.refuse)
            self.paused_at = time.monotonic()
            self.gate.pause(True)
        if progress.phase is Phase.EMPTYING and not progress.waits_for():
            progress.step(Step.EMPTY)
            progress.cancel_deadline()
            self._loop.soon(self._exec)

    def _exec(self) -> None:
        for caller in self.callers:  # no client is read any more, but a closed connection is seen
            if self.gate.has_hung_up(caller):
                self.on_gone(caller.client)
        if self.progress.phase is Phase.EXECING:
            self._guard.around(self.hand_over, EXEC_WITHIN)()

    def on_zygote_death(self, revision: Revision, _: int | None) -> None:
        if revision is self._revisions.target and revision.state not in LIVE:
            self.refuse(DeployRefused(f"{revision.name}: its zygote died during the deploy"))

    # ── the end ──────────────────────────────────────────────────────────────────────────────

    def refuse(self, error: DeployRefused) -> None:
        """Back to where the daemon was, with the reason. Does nothing if no deploy is under way:
        what failed then came after a refusal."""
        if self.progress.phase is Phase.IDLE:
            return
        callers, self.callers = self.callers, []
        was_plan = self._how.plan_only
        self._back_to_idle()
        try:
            if not was_plan:
                self._revisions.remember(self.path, str(error))
        finally:  # also if that failed: the waiting clients are known only here
            self._tell_refusal(callers, self.path, error, was_plan)

    def gave_back(self, error: DeployRefused) -> None:
        """In the old image again, since the new image could not adopt: refuse the deploy."""
        target = self._revisions.target
        self.path = target.path if target is not None else ""
        self._life.take(LifeEvent.GIVE_BACK)
        self.refuse(error)

    def _back_to_idle(self) -> None:
        progress = self.progress
        is_held = progress.phase in HELD
        progress.step(Step.REFUSE)
        progress.cancel_deadline()
        if progress.stage is not None:
            progress.stage.stop()
            progress.stage = None
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
        """In the new master: the deploy is done. Tell the callers; older revisions drain."""
        target, self._revisions.target = self.target, None
        self.progress.step(Step.CONFIRM)
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

    def _tell_refusal(
        self, callers: list[Caller], path: str, error: Error, is_plan: bool = False
    ) -> None:
        """To the callers; unless it was a plan alone, also to the log and to ``status``."""
        if not is_plan:
            log.error("deploy refused", release=path, why=str(error))
            self._life.note = f"last deploy refused: {error}"
            self.refused()
        for caller in callers:
            self.gate.refuse(caller, DeployRefused(str(error)))
