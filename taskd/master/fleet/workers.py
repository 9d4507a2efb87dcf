"""The workers: asked of their zygotes, listened to, claimed for tasks, retired, and buried.

A worker is dead when its parent has reaped it. Its zygote reports that once no process of its tree
lives. If the zygote died first, the master reaps the worker itself and kills its leftovers; a
worker whose zygote and first master are both dead is watched (``orphans``). The end of a connection
is no proof of death: a worker that lives and is busy connects again.
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
from taskd.master.fleet.worker import Parent, Probe, Work, Worker
from taskd.master.loop import NO_WORKER, Entry, Kind, Life, Loop, Messages, Notice, in_words
from taskd.model.endings import death_in_words
from taskd.model.revision import LIVE
from taskd.model.worker import WorkerEvent, WorkerState
from taskd.posix import process

FORKS_AT_ONCE = 8
"""Open fork requests per zygote; it forks one worker after another."""

FORK_PAUSE = 1.0
"""Seconds without a new fork request after one failed (memory, process limit)."""


class Workers:
    """Owns every Worker. ``probes``: the callbacks of probe workers, by worker id.

    Notices: ``changed``: a worker came, is idle, or is gone, or a fork request was answered;
    ``buried``: a worker is gone, and its end settled.
    ``zygote_wanted``: workers are wanted of a revision without a zygote.
    """

    work: Work
    last_words: Callable[[int], None]
    """Reads what a dead process has sent on connections that were not read yet."""

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
        self._wanted: dict[Revision, int] = {}  # how many tasks wait for a worker
        self._fork_paused = False
        self._dying: set[bytes] = set()  # dead, and not buried yet
        self.probes: dict[bytes, Probe] = {}
        self.changed: Notice[[]] = Notice()
        self.buried: Notice[[]] = Notice()
        self.zygote_wanted: Notice[[Revision]] = Notice()

    # ── looking ──────────────────────────────────────────────────────────────────────────────

    def __iter__(self) -> Iterator[Worker]:
        return iter(list(self._all.values()))

    def of(self, revision: Revision) -> list[Worker]:
        return [w for w in self._all.values() if w.revision is revision]

    def in_state(self, state: WorkerState) -> list[Worker]:
        return [w for w in self._all.values() if w.state is state]

    def get(self, worker_id: bytes) -> Worker | None:
        return self._all.get(worker_id)

    def carried(self) -> list[Entry]:
        found = []
        for worker in self:
            if worker.slot_fd >= 0:
                found.append(Entry(worker.slot_fd, Kind.SLOT, worker.slot_name))
            if worker.channel is not None:
                fd = worker.channel.wire.fd
                found.append(Entry(fd, Kind.WORKER, worker.channel_name))
        return found

    def take_idle(self, revision: Revision, limits: Limits) -> Worker | None:
        """Claim an idle worker of ``revision`` that is or may be bound to ``limits``: the one that
        was used last. None: there is none; then those with limits that no queue has are retired."""
        # A worker without a channel is about to end.
        idle = [w for w in self.in_state(WorkerState.IDLE) if w.channel and w.revision is revision]
        if fitting := [worker for worker in idle if worker.limits in (None, limits)]:
            fitting[-1].take(WorkerEvent.CLAIM)
            return fitting[-1]
        known = self._config.limits.values()
        for worker in idle:
            if worker.limits not in known:
                self.retire(worker)
        return None

    # ── asking for workers ───────────────────────────────────────────────────────────────────

    def want(self, revision: Revision, count: int) -> None:
        """``count`` tasks wait for a worker of ``revision``: ask for as many as are missing. An old
        revision keeps no worker for nothing: it goes with its last one."""
        self._wanted[revision] = count
        if count == 0 and not self._is_kept(revision):
            for worker in self.of(revision):
                if worker.state is WorkerState.IDLE:
                    self.retire(worker)
        self.ask(revision)

    def _is_kept(self, revision: Revision) -> bool:
        """Whether idle workers of it stay. (The target's probe worker is for the first task after
        the deploy.)"""
        return revision in (self._revisions.current, self._revisions.target)

    def ask(self, revision: Revision) -> None:
        """Ask the zygote for the workers that are missing, as many as is allowed now."""
        wanted = self._wanted.get(revision, 0)
        if self._fork_paused or not self._life.may_dispatch or wanted <= 0:
            return
        if revision.zygote.channel is None or not revision.tasks:
            self.zygote_wanted(revision)
            return
        states = [worker.state for worker in self.of(revision)]
        asked = states.count(WorkerState.ASKED)
        coming = asked + states.count(WorkerState.STARTING)
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
        """How many of ``missing`` workers [app] max_workers allows now. To make room for the rest,
        idle workers are retired: they are of another revision, or bound to another queue's limits,
        or a task would have claimed them. (A deploy's probe worker stays.)"""
        room = ceilings.room(self, self._config.max_workers)
        idle = [w for w in self.in_state(WorkerState.IDLE) if w.revision.state in LIVE]
        for worker in idle[: max(0, missing - room)]:
            self.retire(worker)
        return min(missing, room)

    def _ask_for(self, worker: Worker, group: str) -> None:
        self._all[worker.id] = worker
        worker.revision.zygote.tell({"type": "fork", "worker": worker.id, "group": group})

    def probe(self, revision: Revision, probe: Probe) -> None:
        """Start one worker of a revision that is proven and not yet live."""
        assert revision.zygote.channel is not None, "a proven revision has a zygote"
        worker = Worker(os.urandom(16), revision)
        group = ""
        with contextlib.suppress(OSError):  # a probe worker runs no task and can do without
            group = self._groups.make(worker.id)
        self.probes[worker.id] = probe
        self._ask_for(worker, group)

    def _put_off_forks(self, why: str, what: str = NO_WORKER) -> None:
        """Ask for no worker for FORK_PAUSE seconds: the next fork would fail for the same cause."""
        self._loop.troubles.tell(what, why)
        self._fork_paused = True

        def resume() -> None:
            self._fork_paused = False
            self.changed()

        self._loop.after(FORK_PAUSE, resume)

    # ── messages of zygotes ──────────────────────────────────────────────────────────────────

    def on_told(self, revision: Revision, message: dict[str, Any]) -> None:
        """A zygote has sent a message. Raises ProtocolError for a report that cannot be true."""
        if message["type"] not in verify.ABOUT_WORKERS:
            return
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
        """A zygote has connected, perhaps again. Its hello lists its workers, and dead ones whose
        death no master has noted.

        A worker that is not in the list is dead, and a master had noted its death; a fork request
        of the connection before has failed, or the worker is in the list. Raises ProtocolError.
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
        if (probe := self.probes.pop(worker.id, None)) is not None:
            probe.on_death(why)
        self.changed()

    # ── messages of workers ──────────────────────────────────────────────────────────────────

    def greet(self, worker: Worker, channel: Messages, message: dict[str, Any]) -> None:
        """A worker has connected, perhaps before its zygote's ``forked`` was read: both messages
        tell its pid and start time."""
        worker.pid, worker.start = message["pid"], message["start"]
        if message.get("ungrouped"):
            worker.is_grouped = False
            why = OSError(message["ungrouped"])
            self._groups.warn("a worker could not join its control group", why)
        if worker.state is WorkerState.ASKED:
            worker.take(WorkerEvent.FORKED)
        if worker.channel is not None:  # the worker has closed its end, a child may still hold it
            worker.channel.wire.close()
        worker.channel = channel
        self.listen(worker)
        if (running := worker.running) is not None:
            log.info("adopted", task=running.task, attempt=running.attempt, worker=worker.id)
            self.work.on_adopted(worker)

    def listen(self, worker: Worker) -> None:
        channel = worker.channel
        assert channel is not None

        def on_lost() -> None:  # no proof of death, but the worker can be given no task
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
                if (probe := self.probes.get(worker.id)) is not None:
                    probe.on_message(message)

    def _on_idle(self, worker: Worker, reusable: bool) -> None:
        if worker.state is WorkerState.LEAVING:  # it was retired before it had a channel
            worker.tell({"type": "retire"})
            return
        worker.says(WorkerEvent.IDLE)
        self._loop.troubles.over(NO_WORKER)
        if (probe := self.probes.get(worker.id)) is not None:
            probe.on_idle(worker)
            return
        wanted = self._wanted.get(worker.revision, 0) > 0 and worker.revision.state in LIVE
        is_used_up = not reusable or worker.served >= self._config.app.tasks_per_worker
        if worker.running is not None:
            self.work.on_free(worker, is_used_up)
        if worker.state is not WorkerState.IDLE:
            pass
        elif is_used_up or not (wanted or self._is_kept(worker.revision)):
            self.retire(worker)
        self.changed()

    def retire(self, worker: Worker) -> None:
        """Tell an idle worker to exit."""
        worker.take(WorkerEvent.RETIRE)
        worker.tell({"type": "retire"})

    # ── deaths ───────────────────────────────────────────────────────────────────────────────

    def bury(self, worker: Worker, status: int | None) -> None:
        """The worker is dead and no process of its tree lives: settle its attempt from its slot,
        and forget the worker. The caller repeats the call after a transient error."""
        log.info("worker gone", worker=worker.id, pid=worker.pid, revision=worker.revision.name)
        if worker.state in (WorkerState.ASKED, WorkerState.STARTING):
            self.last_words(worker.pid)
            self._put_off_forks(worker.unready or death_in_words(status))
        if worker.state is not WorkerState.DEAD:
            worker.take(WorkerEvent.DIED)
        if (probe := self.probes.pop(worker.id, None)) is not None:
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
        self.buried()
        self.changed()

    def on_zygote_death(self, revision: Revision, _: int | None) -> None:
        """The zygote's workers become the master's children, or init's if the zygote was not the
        master's child. Its open fork requests have failed."""
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
        """The worker is init's child: a pidfd reports its death, without the exit status."""
        worker.parent = Parent.INIT
        self._orphans.watch(worker.identity, lambda: self._end_when_over(worker, None))

    def reap_own(self) -> None:
        """Reap and bury the dead among the workers that are the master's children."""
        for worker in self:
            if worker.parent is not Parent.MASTER or worker.id in self._dying:
                continue
            try:
                dead, status = os.waitpid(worker.pid, os.WNOHANG)
            except ChildProcessError:  # its zygote reaped it, and died before it reported that
                if process.is_gone(worker.identity):
                    self._end_when_over(worker, None)
                continue
            if dead:
                self._end_when_over(worker, status)

    def _end_when_over(self, worker: Worker, status: int | None) -> None:
        dead = Dead(
            worker.id, worker.pid, worker.start, worker.mark, worker.patience, had_master=True
        )

        def bury() -> None:
            self._dying.add(worker.id)
            self._intake.once_admitted(worker.slot_fd, lambda: self.bury(worker, status))

        self._deaths.once_over(dead, bury, waiting=lambda: self._dying.add(worker.id))

    def kill(self, worker: Worker, why: str) -> None:
        """Kill the worker's processes; its task is interrupted for that reason, never failed."""
        worker.asked_to_leave = why
        if worker.pid:
            process.kill(worker.identity)
            with contextlib.suppress(OSError):  # its death will be reported, and ends the group
                self._groups.end(worker.id, worker.patience)
