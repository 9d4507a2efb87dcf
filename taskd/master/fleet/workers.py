"""The workers: asked for, heard, given tasks, retired, and buried.

A worker is dead when whoever is its parent has reaped it: its zygote says so once its whole tree
is gone, or, if the zygote died first, the master reaps it itself and sweeps what it left; one whose
zygote and first master are both dead is watched (``orphans``). The end of a connection proves
nothing: whoever is alive and busy comes back on another one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from taskd import log
from taskd.config import Limits
from taskd.errors import ProtocolError
from taskd.master.fleet import ceilings, verify
from taskd.master.fleet.revision import Revision
from taskd.master.fleet.worker import Probe, Worker
from taskd.master.loop.ledger import Kind
from taskd.master.loop.trouble import NO_WORKER, in_words
from taskd.master.loop.wire import Messages
from taskd.model.endings import death_in_words
from taskd.model.revision import LIVE
from taskd.model.worker import WorkerEvent, WorkerState
from taskd.paths import WORKER_SOCKET
from taskd.posix import limits, mark, process, tree

if TYPE_CHECKING:
    from taskd.master.master import Master

FORKS_AT_ONCE = 8
"""Workers one revision's zygote is asked for at the same time; it forks one after another."""

FORK_PAUSE = 1.0
"""Seconds without a new request after a fork failed (memory, process limit)."""

STRAGGLERS_AGAIN, STRAGGLERS_LATEST = 0.05, 1.0
"""Seconds between two looks at a dead worker's leftovers that are being killed: at first, and when
they will not die."""


class Workers:
    """Owns every Worker."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._all: dict[bytes, Worker] = {}
        self._wanted: dict[Revision, int] = {}
        self._probes: dict[bytes, Probe] = {}
        self._fork_paused = False
        self._dying: set[bytes] = set()  # dead, and what they left is not

    # ── looking ──────────────────────────────────────────────────────────────────────────────

    def __iter__(self) -> Iterator[Worker]:
        return iter(list(self._all.values()))

    def any_of(self, revision: Revision) -> bool:
        return any(w.revision is revision for w in self._all.values())

    def of(self, revision: Revision) -> list[Worker]:
        return [w for w in self._all.values() if w.revision is revision]

    def is_known(self, worker_id: bytes) -> bool:
        return worker_id in self._all

    @property
    def forks_open(self) -> int:
        """Requests that a zygote has not answered: an exec waits for none to be open."""
        return sum(1 for w in self._all.values() if w.state is WorkerState.ASKED)

    def take_idle(self, revision: Revision, limits: Limits) -> Worker | None:
        """An idle worker of ``revision`` that may be bound to ``limits``, now claimed for a task;
        the most recently used one."""
        groups = self._master.groups
        idle = [
            worker
            for worker in self._all.values()  # without a channel it is on its way out
            if worker.channel and worker.state is WorkerState.IDLE and worker.revision is revision
        ]
        if fitting := [worker for worker in idle if groups.fits(worker, limits)]:
            fitting[-1].take(WorkerEvent.CLAIM)
            return fitting[-1]
        for worker in filter(groups.is_outdated, idle):  # nothing will ever be given to it
            self.retire(worker)
        return None

    # ── asking for workers ───────────────────────────────────────────────────────────────────

    def want(self, revision: Revision, count: int) -> None:
        """``count`` tasks wait for a worker of ``revision``: ask for as many as are missing."""
        self._wanted[revision] = count
        self._ask(revision)

    def _ask(self, revision: Revision) -> None:
        if self._fork_paused or self._master.is_frozen or not self._master.is_serving:
            return
        if self._wanted.get(revision, 0) <= 0:
            return  # nor does it need a zygote then
        if revision.channel is None or not revision.tasks:
            self._master.revisions.need_zygote(revision)
            return
        coming = self._count(revision, WorkerState.ASKED, WorkerState.STARTING)
        asked = self._count(revision, WorkerState.ASKED)
        missing = min(self._wanted.get(revision, 0) - coming, FORKS_AT_ONCE - asked)
        allowed = ceilings.below_ceiling(self._master, missing)
        count = ceilings.with_descriptors(self._master, allowed)
        for _ in range(count):
            worker = Worker(os.urandom(16), revision)
            try:
                group = self._master.groups.make(worker.id)
            except OSError as error:
                self._put_off_forks(in_words(error))
                return
            self._ask_for(revision.channel, worker, group)
        if count < allowed:
            self._put_off_forks(ceilings.why_crowded(), ceilings.CROWDED)

    def _ask_for(self, zygote: Messages, worker: Worker, group: str) -> None:
        self._all[worker.id] = worker
        zygote.send({"type": "fork", "worker": worker.id, "group": group})

    def probe(self, revision: Revision, probe: Probe) -> None:
        """Boot one worker of a revision that is proven and not yet live."""
        assert revision.channel is not None, "a proven revision has a zygote"
        worker = Worker(os.urandom(16), revision)
        group = ""
        with contextlib.suppress(OSError):  # it runs nothing that needs one
            group = self._master.groups.make(worker.id)
        self._probes[worker.id] = probe
        self._ask_for(revision.channel, worker, group)

    def forget_probes(self) -> None:
        """Nobody waits for them any more."""
        self._probes.clear()

    def _count(self, revision: Revision, *states: WorkerState) -> int:
        return sum(w.revision is revision and w.state in states for w in self._all.values())

    def zygote_ready(self, revision: Revision) -> None:
        self._ask(revision)

    def on_zygote(self, revision: Revision, message: dict[str, Any]) -> None:
        """Raises ProtocolError for what cannot be true."""
        if message["type"] not in verify.ABOUT_WORKERS:
            return  # newer than this code
        worker = self._all.get(message["worker"])
        if worker is not None:
            verify.zygote(revision, worker, message)
        match message["type"]:
            case "forked" if worker is not None:
                worker.pid, worker.start = message["pid"], message["start"] or worker.start
                if worker.state is WorkerState.ASKED:
                    worker.take(WorkerEvent.FORKED)
                self._master.deploy.on_fork_answered()
                self._master.stop.on_change()
                if self._wanted.get(revision, 0) > 0:  # as of a look before others became idle
                    self._master.dispatch.kick()
            case "unforked" if worker is not None:
                self._put_off_forks(message["message"])
                self._never_came(worker, message["message"])
            case "exited":
                if worker is not None:
                    self._master.intake.admit(worker.slot_fd)
                    self.bury(worker, message["status"])
                if revision.channel is not None:
                    revision.channel.send({"type": "noted", "worker": message["worker"]})

    def _put_off_forks(self, why: str, what: str = NO_WORKER) -> None:
        """What the last one lacked (room on the disk, processes) the next one would lack too."""
        self._master.loop.troubles.tell(what, why)
        self._fork_paused = True
        self._master.loop.after(FORK_PAUSE, self._resume_forks)

    def _resume_forks(self) -> None:
        self._fork_paused = False
        self._master.dispatch.kick()

    # ── connections ──────────────────────────────────────────────────────────────────────────

    def get(self, worker_id: bytes) -> Worker | None:
        return self._all.get(worker_id)

    def greet(self, worker: Worker, channel: Messages, message: dict[str, Any]) -> None:
        """It may connect before its zygote's ``forked`` is read: both say the same."""
        worker.pid, worker.start = message["pid"], message["start"]
        if message.get("ungrouped"):
            self._master.groups.on_ungrouped(worker, message["ungrouped"])
        if worker.state is WorkerState.ASKED:
            worker.take(WorkerEvent.FORKED)
        if worker.channel is not None:  # its end of the old one is closed; a child may hold it
            worker.channel.wire.close()
            self._on_lost(worker)
        worker.channel = channel
        self._master.ledger.add(channel.wire.fd, Kind.WORKER, worker.channel_name)
        self.listen(worker)
        if (running := worker.running) is not None:
            log.info("adopted", task=running.task, attempt=running.attempt, worker=worker.id)
            self._master.attempts.on_sent(running, worker)

    def listen(self, worker: Worker) -> None:
        channel = worker.channel
        assert channel is not None
        channel.on_message = lambda message: self._on_message(worker, message)
        channel.wire.on_lost = lambda: self._on_lost(worker)

    def restore(self, worker: Worker) -> None:
        """Take over a worker of the master before this one."""
        self._all[worker.id] = worker

    def _on_lost(self, worker: Worker) -> None:
        """Not a death: that comes from its parent. But it cannot be given anything any more."""
        self._master.ledger.drop(worker.channel_name)
        worker.channel = None

    def reconcile(self, revision: Revision, known: Any) -> None:
        """Its zygote is (back) on a connection and says whom it has, the unnoted dead included.

        Whoever is missing is dead, and some master had noted that; what was asked for on the
        connection before never came to be, or has a pid by now. Raises ProtocolError.
        """
        try:
            told = {bytes(worker): (int(pid), int(start)) for worker, pid, start in known}
        except (TypeError, ValueError) as error:
            raise ProtocolError(f"hello: workers: {error}") from error
        for worker in self.of(revision):
            if worker.is_ours or worker.is_orphan:
                continue
            if worker.id in told:
                if worker.state is WorkerState.ASKED:
                    worker.pid, worker.start = told[worker.id]
                    worker.take(WorkerEvent.FORKED)
            elif worker.pid:
                verify.death(worker)
                self.bury(worker, None)
            else:
                self._never_came(worker, "its zygote lost the connection")

    def _never_came(self, worker: Worker, why: str) -> None:
        del self._all[worker.id]
        self._master.groups.forget(worker.id)
        if (probe := self._probes.pop(worker.id, None)) is not None:
            probe.on_death(why)
        self._master.deploy.on_fork_answered()

    # ── the worker speaks ────────────────────────────────────────────────────────────────────

    def _on_message(self, worker: Worker, message: dict[str, Any]) -> None:
        match message["type"]:
            case "idle":
                self._on_idle(worker, message["reusable"])
            case "progress" | "waiting":
                self._master.attempts.on_report(worker, message)
            case "ended":
                self._master.attempts.on_ended(worker, message)
            case "planned" if worker.state is WorkerState.PLANNING:
                if (probe := self._probes.get(worker.id)) is not None:
                    probe.on_message(message)

    def _on_idle(self, worker: Worker, reusable: bool) -> None:
        if worker.state is WorkerState.LEAVING:  # retired before it could be told
            self.tell(worker, {"type": "retire"})
            return
        worker.says(WorkerEvent.IDLE)
        self._master.loop.troubles.over(NO_WORKER)
        probe = self._probes.get(worker.id)
        if probe is not None:
            probe.on_idle(worker)
            return
        limit = self._master.config.app.tasks_per_worker
        current = worker.revision in (
            self._master.revisions.current,
            self._master.deploy.target,  # the probe worker stays, warm
        )
        wanted = self._wanted.get(worker.revision, 0) > 0 and worker.revision.state in LIVE
        if not reusable or worker.served >= limit or not (current or wanted):
            self.retire(worker)
        self._master.dispatch.kick()
        self._master.stop.on_change()

    def retire(self, worker: Worker) -> None:
        """Tell an idle worker to exit."""
        worker.take(WorkerEvent.RETIRE)
        self.tell(worker, {"type": "retire"})

    def retire_idle(self, keep: Revision | None) -> None:
        """The idle workers of every revision but ``keep`` go."""
        for worker in self:
            if worker.revision is not keep and worker.state is WorkerState.IDLE:
                self.retire(worker)

    def tell(self, worker: Worker, message: dict[str, Any]) -> None:
        if worker.channel is not None:
            worker.channel.send(message)

    # ── deaths ───────────────────────────────────────────────────────────────────────────────

    def bury(self, worker: Worker, status: int | None) -> None:
        """It is dead and its tree gone: settle its attempt from its slot and forget it.

        Whoever says so may have to say it again, if something here fails for what passes.
        """
        log.info("worker gone", worker=worker.id, pid=worker.pid, revision=worker.revision.name)
        if worker.state in (WorkerState.ASKED, WorkerState.STARTING):
            self._master.doorway.hear_last_words(worker.pid, self._master.listeners[WORKER_SOCKET])
            self._put_off_forks(worker.unready or death_in_words(status))
        if worker.state is not WorkerState.DEAD:
            worker.take(WorkerEvent.DIED)
        if (probe := self._probes.pop(worker.id, None)) is not None:
            probe.on_death(worker.unready or death_in_words(status))
        if worker.channel is not None:
            worker.channel.wire.close()
            self._on_lost(worker)
        self._master.salvage.on_death(worker, status)
        self._master.groups.forget(worker.id)
        if worker.slot_fd >= 0:
            self._master.ledger.drop(worker.slot_name)
            os.close(worker.slot_fd)
            worker.slot_fd = -1
        del self._all[worker.id]
        self._dying.discard(worker.id)
        self._master.revisions.tidy()
        self._master.dispatch.kick()
        self._master.stop.on_change()

    def on_zygote_death(self, revision: Revision) -> None:
        """Its workers are our children now, or, if it was not our child itself, nobody's. Those
        it was just asked for never came to be."""
        for worker in self.of(revision):
            if not worker.pid:
                del self._all[worker.id]
                self._master.groups.forget(worker.id)
            elif revision.is_foreign:
                self.watch_orphan(worker)
            elif not worker.is_orphan:
                worker.is_ours = True
        self._master.deploy.on_fork_answered()
        self._master.loop.soon(self._master.reap)

    def watch_orphan(self, worker: Worker) -> None:
        """Nobody will tell us of its death but the kernel, and not how it died."""
        worker.is_orphan, worker.is_ours = True, False
        self._master.orphans.watch(worker.identity, lambda: self._end_when_over(worker, None))

    def reap_ours(self) -> None:
        """Bury those of our own children among the workers that have died (on every SIGCHLD)."""
        for worker in self:
            if worker.is_ours:
                self._reap(worker)

    def _reap(self, worker: Worker) -> None:
        if worker.id in self._dying:
            return
        try:
            dead, status = os.waitpid(worker.pid, os.WNOHANG)
        except ChildProcessError:  # its zygote reaped it and died before it could tell us
            if process.is_gone(worker.identity):
                self._end_when_over(worker, None)
            return
        if dead:
            self._end_when_over(worker, status)

    def _end_when_over(
        self, worker: Worker, status: int | None, pause: float = STRAGGLERS_AGAIN
    ) -> None:
        """It is dead; what it left behind is killed, and only then is its attempt over. Nothing is
        waited for here: a leftover may hang in the kernel for hours."""
        if self._kill_leftovers(worker):
            self._dying.add(worker.id)
            again = min(2 * pause, STRAGGLERS_LATEST)
            self._master.loop.after(pause, lambda: self._end_when_over(worker, status, again))
        else:
            self._dying.add(worker.id)
            self._master.intake.once_admitted(worker.slot_fd, lambda: self.bury(worker, status))

    def _kill_leftovers(self, worker: Worker) -> bool:
        """Its session, what wears its mark or is in its group, and the orphans that became our
        children; True if any is left. Not looking, for want of a descriptor, is no way out: it
        would overlap."""
        with limits.every_descriptor():
            left = tree.kill_session(worker.pid, worker.patience)
            left = mark.kill_wearers(worker.mark(), worker.patience) or left
            left = self._master.groups.end(worker.id, worker.patience) or left
            return tree.strike(self._master.kept_children(), worker.patience) or left

    def kill(self, worker: Worker, why: str) -> None:
        """End it by force; its task is shown as interrupted for that reason, never as failed."""
        worker.asked_to_leave = why
        if worker.pid:
            process.kill(worker.identity)
            self._master.groups.kill(worker.id, worker.patience)
