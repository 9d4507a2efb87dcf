"""The workers: asked for, heard, given tasks, retired, and buried.

A worker is dead when its parent has reaped it: its zygote says so once its whole tree is gone, or,
if the zygote died first, the master reaps it itself and sweeps what it left; one whose zygote and
first master are both dead is watched (``orphans``). The end of a connection proves nothing: a
worker that is alive and busy comes back on another one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

from taskd import log
from taskd.config import Config, Limits
from taskd.errors import ProtocolError
from taskd.master.fleet import ceilings, verify
from taskd.master.fleet.deaths import Dead, Deaths
from taskd.master.fleet.groups import Groups
from taskd.master.fleet.intake import Intake
from taskd.master.fleet.orphans import Orphans
from taskd.master.fleet.revision import Revision
from taskd.master.fleet.revisions import Revisions
from taskd.master.fleet.work import Work
from taskd.master.fleet.worker import Parent, Probe, Worker
from taskd.master.loop import NO_WORKER, Entry, Life, Loop, Messages, Notice, in_words
from taskd.model.endings import death_in_words
from taskd.model.revision import LIVE
from taskd.model.worker import WorkerEvent, WorkerState
from taskd.posix import process

FORKS_AT_ONCE = 8
"""Workers one revision's zygote is asked for at the same time; it forks one after another."""

FORK_PAUSE = 1.0
"""Seconds without a new request after a fork failed (memory, process limit)."""


class Workers:
    """Owns every Worker. Notices: ``changed`` (a worker came, is idle, or is gone; a fork was
    answered), ``zygote_wanted``."""

    work: Work
    last_words: Callable[[int], None]
    """Read what that process, which is dead, has said on a connection that was not read yet."""

    def __init__(
        self,
        loop: Loop,
        life: Life,
        config: Config,
        groups: Groups,
        revisions: Revisions,
        orphans: Orphans,
        deaths: Deaths,
        intake: Intake,
    ) -> None:
        self._loop = loop
        self._life = life
        self._config = config
        self._groups = groups
        self._revisions = revisions
        self._orphans = orphans
        self._deaths = deaths
        self._intake = intake
        self._all: dict[bytes, Worker] = {}
        self._wanted: dict[Revision, int] = {}
        self._probes: dict[bytes, Probe] = {}
        self._fork_paused = False
        self._dying: set[bytes] = set()  # dead, and what they left is not
        self.changed: Notice[[]] = Notice()
        self.zygote_wanted: Notice[[Revision]] = Notice()

    # ── looking ──────────────────────────────────────────────────────────────────────────────

    def __iter__(self) -> Iterator[Worker]:
        return iter(list(self._all.values()))

    def any_of(self, revision: Revision) -> bool:
        return any(w.revision is revision for w in self._all.values())

    def of(self, revision: Revision) -> list[Worker]:
        return [w for w in self._all.values() if w.revision is revision]

    def get(self, worker_id: bytes) -> Worker | None:
        return self._all.get(worker_id)

    def carried(self) -> list[Entry]:
        return [entry for worker in self for entry in worker.carried()]

    @property
    def forks_open(self) -> int:
        """Requests that a zygote has not answered: an exec waits for none to be open."""
        return sum(1 for w in self._all.values() if w.state is WorkerState.ASKED)

    def take_idle(self, revision: Revision, limits: Limits) -> Worker | None:
        """An idle worker of ``revision`` that may be bound to ``limits``, now claimed for a task;
        the most recently used one."""
        idle = [
            worker
            for worker in self._all.values()  # without a channel it is on its way out
            if worker.channel and worker.state is WorkerState.IDLE and worker.revision is revision
        ]
        if fitting := [worker for worker in idle if worker.limits in (None, limits)]:
            fitting[-1].take(WorkerEvent.CLAIM)
            return fitting[-1]
        known = self._config.limits.values()
        for worker in idle:
            if worker.limits not in known:  # no queue has its limits: nothing is ever given to it
                self.retire(worker)
        return None

    # ── asking for workers ───────────────────────────────────────────────────────────────────

    def want(self, revision: Revision, count: int) -> None:
        """``count`` tasks wait for a worker of ``revision``: ask for as many as are missing."""
        self._wanted[revision] = count
        self.ask(revision)

    def ask(self, revision: Revision) -> None:
        """For those that are missing, as far as they may be asked for now."""
        wanted = self._wanted.get(revision, 0)
        if self._fork_paused or not self._life.may_dispatch or wanted <= 0:
            return
        if revision.zygote.channel is None or not revision.tasks:
            self.zygote_wanted(revision)
            return
        asked = self._count(revision, WorkerState.ASKED)
        coming = asked + self._count(revision, WorkerState.STARTING)
        allowed = self._below_ceiling(min(wanted - coming, FORKS_AT_ONCE - asked))
        count = ceilings.with_descriptors(self, allowed)
        for _ in range(count):
            worker = Worker(os.urandom(16), revision)
            try:
                group = self._groups.make(worker.id)
            except OSError as error:
                self._put_off_forks(in_words(error))
                return
            self._ask_for(worker, group)
        if count < allowed:
            self._put_off_forks(ceilings.why_crowded(), ceilings.CROWDED)

    def _below_ceiling(self, missing: int) -> int:
        """How many of ``missing`` workers [app] max_workers allows now. For the rest, idle ones go:
        they are of another revision, or bound to another queue's limits, or would have been taken.
        (The worker of a deploy that is under way stays.)"""
        room = ceilings.room(self, self._config.max_workers)
        idle = [w for w in self if w.state is WorkerState.IDLE and w.revision.state in LIVE]
        for worker in idle[: max(0, missing - room)]:
            self.retire(worker)
        return min(missing, room)

    def _ask_for(self, worker: Worker, group: str) -> None:
        self._all[worker.id] = worker
        worker.revision.zygote.tell({"type": "fork", "worker": worker.id, "group": group})

    def probe(self, revision: Revision, probe: Probe) -> None:
        """Boot one worker of a revision that is proven and not yet live."""
        assert revision.zygote.channel is not None, "a proven revision has a zygote"
        worker = Worker(os.urandom(16), revision)
        group = ""
        with contextlib.suppress(OSError):  # it runs nothing that needs one
            group = self._groups.make(worker.id)
        self._probes[worker.id] = probe
        self._ask_for(worker, group)

    def forget_probes(self) -> None:
        """The plan that they answered for is over."""
        self._probes.clear()

    def _count(self, revision: Revision, state: WorkerState) -> int:
        return sum(w.revision is revision and w.state is state for w in self._all.values())

    def _put_off_forks(self, why: str, what: str = NO_WORKER) -> None:
        """What the last one lacked (room on the disk, processes) the next one would lack too."""
        self._loop.troubles.tell(what, why)
        self._fork_paused = True

        def resume() -> None:
            self._fork_paused = False
            self.changed()

        self._loop.after(FORK_PAUSE, resume)

    # ── the zygote speaks ────────────────────────────────────────────────────────────────────

    def on_told(self, revision: Revision, message: dict[str, Any]) -> None:
        """Raises ProtocolError for what cannot be true."""
        if message["type"] not in verify.ABOUT_WORKERS:
            return  # not about workers, or newer than this code
        worker = self._all.get(message["worker"])
        if worker is not None:
            verify.zygote(revision, worker, message)
        match message["type"]:
            case "forked" if worker is not None:
                worker.pid, worker.start = message["pid"], message["start"] or worker.start
                if worker.state is WorkerState.ASKED:
                    worker.take(WorkerEvent.FORKED)
                self.changed()
            case "unforked" if worker is not None:
                self._put_off_forks(message["message"])
                self._never_came(worker, message["message"])
            case "exited":
                if worker is not None:
                    self._intake.admit(worker.slot_fd)
                    self.bury(worker, message["status"])
                revision.zygote.tell({"type": "noted", "worker": message["worker"]})

    def reconcile(self, revision: Revision, message: dict[str, Any]) -> None:
        """Its zygote is (back) on a connection and says whom it has, the unnoted dead included.

        A worker that it does not name is dead, and some master had noted that; what was asked for
        on the connection before never came to be, or has a pid by now. Raises ProtocolError.
        """
        if "workers" not in message:
            return
        try:
            known = {
                bytes(worker): (int(pid), int(start)) for worker, pid, start in message["workers"]
            }
        except (TypeError, ValueError) as error:
            raise ProtocolError(f"hello: workers: {error}") from error
        for worker in self.of(revision):
            if worker.parent is not Parent.ZYGOTE:
                continue
            if worker.id in known:
                if worker.state is WorkerState.ASKED:
                    worker.pid, worker.start = known[worker.id]
                    worker.take(WorkerEvent.FORKED)
            elif worker.pid:
                verify.death(worker)
                self.bury(worker, None)
            else:
                self._never_came(worker, "its zygote lost the connection")

    def _never_came(self, worker: Worker, why: str) -> None:
        del self._all[worker.id]
        self._groups.forget(worker.id)
        if (probe := self._probes.pop(worker.id, None)) is not None:
            probe.on_death(why)
        self.changed()

    # ── the worker speaks ────────────────────────────────────────────────────────────────────

    def greet(self, worker: Worker, channel: Messages, message: dict[str, Any]) -> None:
        """It may connect before its zygote's ``forked`` is read: both say the same."""
        worker.pid, worker.start = message["pid"], message["start"]
        if message.get("ungrouped"):
            self._groups.on_ungrouped(worker, message["ungrouped"])
        if worker.state is WorkerState.ASKED:
            worker.take(WorkerEvent.FORKED)
        if worker.channel is not None:  # its end of the old one is closed; a child may hold it
            worker.channel.wire.close()
        worker.channel = channel
        self.listen(worker)
        if (running := worker.running) is not None:
            log.info("adopted", task=running.task, attempt=running.attempt, worker=worker.id)
            self.work.on_adopted(worker)

    def listen(self, worker: Worker) -> None:
        channel = worker.channel
        assert channel is not None

        def on_lost() -> None:  # not a death: but it cannot be given anything any more
            worker.channel = None

        channel.on_message = lambda message: self._on_message(worker, message)
        channel.wire.on_lost = on_lost

    def restore(self, worker: Worker) -> None:
        """Take over a worker of the master before this one."""
        self._all[worker.id] = worker

    def _on_message(self, worker: Worker, message: dict[str, Any]) -> None:
        match message["type"]:
            case "idle":
                self._on_idle(worker, message["reusable"])
            case "progress" | "waiting":
                self.work.on_report(worker, message)
            case "ended":
                self.work.on_ended(worker, message)
            case "planned" if worker.state is WorkerState.PLANNING:
                if (probe := self._probes.get(worker.id)) is not None:
                    probe.on_message(message)

    def _on_idle(self, worker: Worker, reusable: bool) -> None:
        if worker.state is WorkerState.LEAVING:  # retired before it could be told
            worker.tell({"type": "retire"})
            return
        worker.says(WorkerEvent.IDLE)
        self._loop.troubles.over(NO_WORKER)
        if (probe := self._probes.get(worker.id)) is not None:
            probe.on_idle(worker)
            return
        # The probe worker of a deploy's target stays, warm.
        needed = worker.revision in (self._revisions.current, self._revisions.target)
        wanted = self._wanted.get(worker.revision, 0) > 0 and worker.revision.state in LIVE
        is_used_up = not reusable or worker.served >= self._config.app.tasks_per_worker
        if is_used_up or not (needed or wanted):
            self.retire(worker)
        self.changed()

    def retire(self, worker: Worker) -> None:
        """Tell an idle worker to exit."""
        worker.take(WorkerEvent.RETIRE)
        worker.tell({"type": "retire"})

    def retire_idle(self, keep: Revision | None) -> None:
        """The idle workers of every revision but ``keep`` go."""
        for worker in self:
            if worker.revision is not keep and worker.state is WorkerState.IDLE:
                self.retire(worker)

    # ── deaths ───────────────────────────────────────────────────────────────────────────────

    def bury(self, worker: Worker, status: int | None) -> None:
        """It is dead and its tree gone: settle its attempt from its slot and forget it.

        Called again by the caller if something here meets a transient error.
        """
        log.info("worker gone", worker=worker.id, pid=worker.pid, revision=worker.revision.name)
        if worker.state in (WorkerState.ASKED, WorkerState.STARTING):
            self.last_words(worker.pid)
            self._put_off_forks(worker.unready or death_in_words(status))
        if worker.state is not WorkerState.DEAD:
            worker.take(WorkerEvent.DIED)
        if (probe := self._probes.pop(worker.id, None)) is not None:
            probe.on_death(worker.unready or death_in_words(status))
        if worker.channel is not None:
            worker.channel.wire.close()
            worker.channel = None
        self.work.on_death(worker, status)
        self._groups.forget(worker.id)
        if worker.slot_fd >= 0:
            os.close(worker.slot_fd)
            worker.slot_fd = -1
        del self._all[worker.id]
        self._dying.discard(worker.id)
        self.changed()

    def on_zygote_death(self, revision: Revision, _: int | None) -> None:
        """Its workers are the master's children now, or, if it was not the master's child itself,
        init's. Those that it was just asked for never came to be."""
        for worker in self.of(revision):
            if not worker.pid:
                del self._all[worker.id]
                self._groups.forget(worker.id)
            elif revision.zygote.is_foreign:
                self.watch_orphan(worker)
            elif worker.parent is not Parent.INIT:
                worker.parent = Parent.MASTER
        self.changed()

    def watch_orphan(self, worker: Worker) -> None:
        """The kernel alone tells of its death, and not how it died."""
        worker.parent = Parent.INIT
        self._orphans.watch(worker.identity, lambda: self._end_when_over(worker, None))

    def reap_own(self) -> None:
        """Bury those of the master's own children among the workers that have died."""
        for worker in self:
            if worker.parent is not Parent.MASTER or worker.id in self._dying:
                continue
            try:
                dead, status = os.waitpid(worker.pid, os.WNOHANG)
            except ChildProcessError:  # its zygote reaped it and died before it could tell so
                if process.is_gone(worker.identity):
                    self._end_when_over(worker, None)
                continue
            if dead:
                self._end_when_over(worker, status)

    def _end_when_over(self, worker: Worker, status: int | None) -> None:
        dead = Dead(worker.id, worker.pid, worker.mark, worker.patience, had_master=True)

        def bury() -> None:
            self._dying.add(worker.id)
            self._intake.once_admitted(worker.slot_fd, lambda: self.bury(worker, status))

        self._deaths.once_over(dead, bury, waiting=lambda: self._dying.add(worker.id))

    def kill(self, worker: Worker, why: str) -> None:
        """End it by force; its task is shown as interrupted for that reason, never as failed."""
        worker.asked_to_leave = why
        if worker.pid:
            process.kill(worker.identity)
            self._groups.kill(worker.id, worker.patience)
