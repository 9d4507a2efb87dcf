"""The composition root: makes every part of the master, hands each what it needs, and connects
what lower rooms tell with the upper rooms that listen.

No part is handed the Master. One thread runs the loop and changes everything in here; the store's
writer thread applies what is handed to it. What may be done when stands in ``loop.life``.
"""

from __future__ import annotations

import functools
import signal
from collections.abc import Callable

from taskd.config import Config
from taskd.master.attempts import Attempts, Dispatch, Endings, Pauses, Sending, TaskLogs, Watching
from taskd.master.clients import Clients, Serving, Streams
from taskd.master.deploy import (
    AfterDrain,
    Capacity,
    Deploy,
    Draining,
    Progress,
    Stages,
    before,
    plan_questions,
    trial,
)
from taskd.master.fleet import (
    Children,
    Deaths,
    Expected,
    Groups,
    Intake,
    Introductions,
    OomWatch,
    Orphans,
    Proofs,
    Recheck,
    Respawn,
    Retirement,
    Revision,
    Revisions,
    Work,
    Workers,
    Zygotes,
)
from taskd.master.loop import (
    ALL,
    Entry,
    Life,
    LifeState,
    Listeners,
    Loop,
    StateDirectory,
    Storage,
    ledger,
)
from taskd.master.recovery import Salvage, Survivors, Unowned
from taskd.master.schedules import Schedules
from taskd.master.service import Periodic, Retention, SocketFiles, Stop, SystemdStatus, checks
from taskd.paths import CONTROL_SOCKET, SUBMIT_SOCKET, WORKER_SOCKET, Places
from taskd.posix import pidfile


class Master:
    """Made by a start, or by a new image from the snapshot of the one before it. The handoff, which
    lies above, sets ``snapshot`` and ``deploy.hand_over``."""

    snapshot: Callable[[], bytes]

    def __init__(
        self, config: Config, places: Places, state: LifeState = LifeState.STARTING
    ) -> None:
        self.config = config
        self.places = places
        self._make_loop(state)
        self._make_fleet()
        self._make_attempts()
        self._make_recovery()
        self._make_deploy()
        self._make_service()
        self._make_clients()
        self._connect()

    # ── the rooms, from below ────────────────────────────────────────────────────────────────

    def _make_loop(self, state: LifeState) -> None:
        self.loop = Loop()
        self.life = Life(state)
        self.statedir = StateDirectory(self.places, self.loop.troubles)
        self.storage = Storage(self.loop, self.life, self.statedir, self.places.store)
        self.listeners = Listeners(self.loop, self.places.runtime, self.config.access)

    def _make_fleet(self) -> None:
        loop, life, config, places = self.loop, self.life, self.config, self.places
        self.oom = OomWatch()
        self.intake = Intake(loop, life)
        self.groups = Groups(loop, config)
        self.orphans = Orphans(loop)
        self.revisions = Revisions(places)
        self.deaths = Deaths(loop, self.groups, lambda: self.children.kept())
        self.workers = Workers(
            loop, life, config, self.groups, self.revisions, self.orphans, self.deaths, self.intake
        )
        self.zygotes = Zygotes(loop, config, places, self.revisions, self.orphans)
        self.children = Children(loop, life, self.revisions, self.workers, self.zygotes)
        self.respawn = Respawn(loop, life, config, self.revisions, self.zygotes)
        self.recheck = Recheck()
        self.expected = Expected(loop)
        self.proofs = Proofs(
            loop, config, self.revisions, self.workers, self.zygotes, self.orphans, self.recheck
        )
        self.retirement = Retirement(
            loop,
            places.zygotes,
            self.revisions,
            self.workers,
            self.zygotes,
            self.proofs,
            self.expected,
            self.respawn,
            self.storage,
            lambda: {running.name for running in self.attempts.all()},
            lambda: {place.revision for place in self.attempts.offered.values()},
        )
        self.introductions = Introductions(
            loop, places.slots, self.revisions, self.workers, self.zygotes
        )

    def _make_attempts(self) -> None:
        loop, config, storage = self.loop, self.config, self.storage
        self.attempts = Attempts(loop, config, self.revisions, self.workers, self.oom)
        self.pauses = Pauses(loop, storage)
        watched = (self.places, storage, self.attempts, self.workers.kill)
        self.watching = Watching(loop, config, *watched)
        self.tasklogs = TaskLogs(loop, config, self.places, self.revisions, self.attempts)
        self.endings = Endings(loop, storage, self.intake, self.attempts, self.tasklogs)
        self.sending = Sending(loop, self.life, config, self.places, self.attempts, self.endings)
        self.dispatch = Dispatch(
            loop,
            self.life,
            config,
            self.places,
            storage,
            self.revisions,
            self.groups,
            self.workers,
            self.attempts,
            self.sending,
        )

        self.schedules = Schedules(
            loop, self.life, storage, self.revisions, self.dispatch, self.pauses
        )

    def _make_recovery(self) -> None:
        slots, storage = self.places.slots, self.storage
        self.salvage = Salvage(slots, storage, self.groups, self.oom, self.attempts, self.endings)
        self.unowned = Unowned(
            self.loop,
            self.life,
            slots,
            storage,
            self.groups,
            self.orphans,
            self.deaths,
            self.intake,
            self.workers,
            self.attempts,
            self.salvage,
        )
        self.survivors = Survivors(
            self.config,
            self.places,
            self.groups,
            self.revisions,
            self.workers,
            self.zygotes,
            self.attempts,
        )

    def _make_deploy(self) -> None:
        loop, life, config, storage = self.loop, self.life, self.config, self.storage
        revisions, workers, attempts = self.revisions, self.workers, self.attempts
        in_flight = lambda: self.clients.in_flight  # noqa: E731
        progress = Progress(loop, revisions, workers, self.children, attempts, in_flight)
        self.draining = Draining(loop, life, config, revisions, workers, attempts)
        self.after_drain = AfterDrain(
            loop,
            life,
            config,
            self.places.state,
            storage,
            revisions,
            self.children,
            attempts,
            progress,
        )
        told = (self.pauses, self.schedules, self.dispatch.limits)
        stages = Stages(
            plan_questions.Sources(loop, self.places, storage, revisions, workers, attempts, *told),
            lambda: trial.Means(loop, self.children, self.orphans, self.snapshot),
            before.Surroundings(loop, self.children, self.after_drain),
        )
        self.deploy = Deploy(
            loop,
            life,
            config,
            storage,
            revisions,
            self.proofs,
            self.recheck,
            Capacity(revisions, workers, attempts),
            stages,
            progress,
            self.draining,
        )

    def _make_service(self) -> None:
        loop, life, config, places = self.loop, self.life, self.config, self.places
        self.stop = Stop(
            loop,
            life,
            config,
            self.storage,
            self.revisions,
            self.workers,
            self.zygotes,
            self.attempts,
            self.salvage,
            self.unowned,
            self.after_drain,
        )
        self.systemd = SystemdStatus(loop, life, self.storage.writer, self.revisions, self.attempts)
        self.periodic = Periodic(
            loop,
            life,
            self.statedir,
            SocketFiles(loop, places, self.listeners),
            self.storage,
            self.revisions,
            self.tasklogs,
            self.dispatch,
        )
        told = (self.deploy.progress, lambda task: self.streams.has_to_tell(task))
        self.retention = Retention(loop, life, config, places, self.storage, *told)

    def _make_clients(self) -> None:
        serving = Serving(
            self.loop,
            self.life,
            self.config,
            self.places,
            self.storage,
            self.revisions,
            self.workers,
            self.attempts,
            self.dispatch,
            self.pauses,
            self.schedules,
            self.deploy,
            self.stop,
            lambda: self.groups.checks() + self.retention.checks() + checks(self.listeners.given),
        )
        self.clients: Clients = serving.clients
        self.streams: Streams = serving.streams

    # ── what is told, and who listens ────────────────────────────────────────────────────────

    def _connect(self) -> None:
        """Listeners are called in the order in which they stand here."""
        self.workers.last_words = self._hear_last_words
        self.endings.beside = self.dispatch.take_beside
        self.workers.work = Work(
            on_free=self.sending.on_free,
            on_adopted=self.attempts.on_sent,
            on_report=self.attempts.on_report,
            on_ended=self.endings.on_ended,
            on_death=self.salvage.on_death,
        )
        self.deploy.gate = self.clients
        self.stop.answers = self.clients
        self.draining.look_at_the_clock = self.periodic.look_at_the_clock
        self.systemd.stop_in_words = self.stop.in_words
        self.listeners.accept = {
            WORKER_SOCKET: self.introductions.accept,
            CONTROL_SOCKET: functools.partial(self.clients.accept, is_control=True),
            SUBMIT_SOCKET: functools.partial(self.clients.accept, is_control=False),
        }

        self.zygotes.greeted.to(
            self.workers.reconcile, self._recheck_if_expected, self.proofs.on_greeted
        )
        self.zygotes.told.to(self.proofs.on_told, self.workers.on_told)
        self.zygotes.ready.to(lambda _: self.retirement.look(), self.workers.ask)
        self.zygotes.died.to(
            self.proofs.on_death,
            self.deploy.on_zygote_death,
            self.workers.on_zygote_death,
            lambda revision, _: self.expected.met(revision, False),
            lambda *_: self.retirement.look(),
            self.respawn.on_death,
            lambda *_: self.loop.soon(self.children.reap),
        )
        self.workers.zygote_wanted.to(self.respawn.need)
        looks = (self.dispatch.kick, self.deploy.look, self.after_drain.look, self.stop.look)
        self.workers.changed.to(*looks)
        self.workers.buried.to(self.retirement.look)
        self.children.reaped.to(self.deploy.look, self.stop.look)
        self.retirement.retired.to(self.dispatch.kick, self.after_drain.look)
        self.attempts.changed.to(self.systemd.changed)
        self.attempts.progressed.to(self.streams.on_progress, self.watching.heard)
        self.attempts.sent.to(self.watching.watch)
        self.attempts.released.to(self.watching.forget)
        self.dispatch.claimed.to(self.deploy.look)
        self.pauses.changed.to(self.schedules.refresh)
        self.endings.ended.to(lambda _: self.schedules.refresh_if_waiting())
        self.endings.ended.to(self.dispatch.on_waiting, *(lambda _, a=a: a() for a in looks[1:]))
        on_applied = (each.on_applied for each in (self.streams, self.unowned, self.dispatch))
        self.storage.applied.to(*on_applied)
        self.statedir.back.to(self.dispatch.kick, self.after_drain.look)
        self.clients.answered.to(self.deploy.look)
        self.clients.gone.to(self.streams.forget, lambda c: self.deploy.on_gone(c.number))
        self.clients.drained.to(self.streams.resume)
        self.deploy.refused.to(self.systemd.say)
        self.deploy.over.to(self.dispatch.wake_due, self.dispatch.kick, self.after_drain.look)
        self.deploy.over.to(self.schedules.look)
        self.after_drain.over.to(self.stop.look)
        self.stop.begun.to(self.deploy.on_stop, self.systemd.stopping)
        self.life.changed.to(self.systemd.changed)
        self.loop.troubles.on_change = self.systemd.changed

    def _hear_last_words(self, pid: int) -> None:
        """That process is dead: what it said on a connection that was not accepted, or not read."""
        self.listeners.read_now(WORKER_SOCKET)
        self.introductions.drain(pid)

    def _recheck_if_expected(self, revision: Revision, _: object) -> None:
        if revision is self.expected.revision:
            met = lambda what: self.expected.met(revision, what is None)  # noqa: E731
            self.recheck.ask(revision, False, met)

    def catch_signals(self) -> None:
        self.loop.on_signal(signal.SIGCHLD, self.children.reap)
        self.loop.on_signal(signal.SIGHUP, self.deploy.wish)
        self.loop.on_signal(signal.SIGTERM, self.stop.on_signal)
        self.loop.on_signal(signal.SIGINT, self.stop.on_signal)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)

    def serve(self) -> None:
        """Everything is in place: read, accept, reap, dispatch."""
        self.systemd.begin()
        self.listeners.set_modes()
        self.listeners.hear(*ALL)
        self.loop.soon(self.children.reap)  # after a transient error again
        self.pauses.look()
        for worker in self.workers:
            self.watching.watch(worker)
        self.dispatch.begin()
        self.schedules.begin()
        self.after_drain.look()
        self.streams.on_everything()
        self.draining.look()
        self.periodic.begin()
        self.retention.begin()

    def carried(self) -> list[Entry]:
        """Every descriptor that crosses an exec. Raises ValueError if two have one name."""
        return ledger(
            [
                *self.listeners.carried(),
                *self.statedir.locks.values(),
                *self.zygotes.carried(),
                *self.workers.carried(),
                *self.introductions.carried(),
                *self.clients.carried(),
            ]
        )

    def end(self) -> None:
        """``close``, as the last thing of the process: a signal comes too late, and must not end
        it in its own way once the interpreter takes its handlers back."""
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        self.close()

    def close(self) -> None:
        """Zygotes go, but for those whose workers are kept for the next master."""
        for revision in self.revisions:
            if not (self.stop.keeps and self.workers.of(revision)):
                self.zygotes.kill(revision)
        self.listeners.close()
        self.storage.close()
        if (path := pidfile.wanted()) is not None:
            pidfile.remove(path)
