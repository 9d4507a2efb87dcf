"""Stopping: every task is asked to leave at its next safe point, and what has left is kept.

Begun by SIGTERM or SIGINT. A task that does not leave within ``[daemon] stop_timeout`` (or until
a second signal) is ended by force; it continues from its last saved point after the next start.

Under a service manager it is not: the daemon goes and its workers are kept, since a restart is a
stop as well, and the next master adopts them. What a real stop must not leave behind, the unit
sweeps after it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from taskd import log
from taskd.master.revision import Revision
from taskd.model.worker import WorkerState
from taskd.posix import pidfile
from taskd.systemd import notify

if TYPE_CHECKING:
    from taskd.master.core import Master

LAST_MOMENTS = 5.0
"""Seconds that zygotes and idle workers have to go before they are killed."""


class Stop:
    """The stop under way, if any."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self.under_way = False
        self._forced = False
        # A detached daemon has such a socket too, until it is ready, and nobody behind it.
        self.keeps = "NOTIFY_SOCKET" in os.environ and pidfile.wanted() is None

    def begin(self) -> None:
        """Ask everything to leave; a second call ends what has not left yet."""
        if self.under_way:
            self._force("a second signal asked to stop at once")
            return
        self.under_way = True
        self._master.is_serving = False
        self._master.deploy.on_stop()
        notify.tell("STOPPING=1")
        running = self._master.attempts.all()
        limit = self._master.config.daemon.stop_timeout
        if running:
            log.info(
                f"stopping: {len(running)} tasks are asked to leave, for {limit:.0f} s at most"
            )
        for attempt in running:
            self._master.attempts.ask(attempt.task, "leave", "the daemon stops")
        self._master.loop.after(limit, lambda: self._out_of_time(limit))
        self.on_change()

    def _out_of_time(self, limit: float) -> None:
        if self.keeps:
            self._keep(limit)
        else:
            self._force(f"did not leave in {limit:.0f} s")

    def _keep(self, limit: float) -> None:
        """Go without them."""
        if self._forced:
            return
        for worker in self._master.workers:
            if worker.running is not None:
                why = f"did not leave in {limit:.0f} s; its worker goes on"
                log.warning("kept", task=worker.running.task, reason=why)
        self._master.after_drain.cut_off()
        self._finish()

    def _force(self, why: str) -> None:
        if self._forced:
            return
        self._forced = True
        for worker in self._master.workers:
            if worker.running is not None:
                log.warning("ended by force", task=worker.running.task, reason=why)
            self._master.workers.kill(worker, f"the daemon stopped; {why}")
        self._master.after_drain.cut_off()
        self.on_change()

    def on_change(self) -> None:
        """A worker, zygote or attempt is over: is everything?"""
        if not self.under_way:
            return
        for worker in self._master.workers:
            if worker.state in (WorkerState.IDLE, WorkerState.STARTING):
                self._master.workers.retire(worker)
        for revision in self._master.revisions:
            self._retire(revision)
        left = [r for r in self._master.revisions if r.pid is not None]
        busy = any(a.attempt and self._master.attempts.worker_of(a.task)
                   for a in self._master.attempts.all())  # fmt: skip
        busy = busy or self._master.after_drain.is_running
        if not busy and not left and not list(self._master.workers):
            self._finish()

    def _finish(self) -> None:
        if self._master.writer.pending:
            self._master.loop.after(0.01, self._finish)
        else:
            self._master.loop.stop()

    def _retire(self, revision: Revision) -> None:
        if revision.zygote_retired or revision.pid is None:
            return
        revision.zygote_retired = True
        if revision.channel is None:
            self._master.kill(revision.pid)
            return
        revision.channel.send({"type": "retire"})
        pid = revision.pid

        def overdue() -> None:
            if revision.pid == pid and not self._master.workers.any_of(revision):
                self._master.kill(pid)

        self._master.loop.after(LAST_MOMENTS, overdue)
