"""Stopping: every task is asked to leave at its next safe point, and what has left is kept.

Begun by SIGTERM or SIGINT, or by the request ``shutdown`` (the unit's ExecStop=), which knows what
of the two it is. A task that does not leave within ``[daemon] stop_timeout`` (or until a second
signal) is ended by force, and continues from its last saved point after the next start. In a
restart it is not: the daemon goes and its workers are kept, and the next master adopts them.

A signal does not say which. Under a service manager it is taken as a restart: what a real stop must
not leave behind, the unit sweeps after it (ExecStopPost=, for a daemon that does not get so far).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taskd import log
from taskd.master.fleet.revision import Revision
from taskd.master.recovery import unowned
from taskd.model.worker import WorkerState
from taskd.posix import pidfile
from taskd.systemd import notify

if TYPE_CHECKING:
    from taskd.master.clients.clients import Client
    from taskd.master.master import Master

LAST_MOMENTS = 5.0
"""Seconds that zygotes and idle workers have to go before they are killed."""

TOLD = 1000
"""Tasks that a list of an answer names."""

LAST_WORDS = 100
"""Looks, a hundredth of a second apart, at whether who asked for the stop has read its answer."""


class Stop:
    """The stop under way, if any."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self.under_way = False
        self._forced = False
        self._signalled = False
        # A detached daemon has such a socket too, until it is ready, and nobody behind it.
        self.keeps = notify.is_heard() and pidfile.wanted() is None
        self._asked: list[int] = []  # the tasks that were asked to leave
        self._ended: list[int] = []
        self._kept: list[int] = []
        self._callers: list[tuple[int, int]] = []  # number of the client, id of its request
        self._is_over = False

    # ── beginning ────────────────────────────────────────────────────────────────────────────

    def on_signal(self) -> None:
        """Stop; a second signal ends what has not left yet."""
        if self.under_way and self._signalled:
            self._force("a second signal asked to stop at once")
        self._signalled = True
        self.begin()

    def wish(self, client: Client, request: int, keep: bool | None) -> None:
        """Stop, and tell ``client`` once all is over. ``keep``: what happens to who does not leave
        in time (None: as after a signal)."""
        if keep is not None:
            self.keeps = keep
        self._callers.append((client.number, request))
        self.begin()

    def begin(self) -> None:
        """Ask everything to leave, if that has not been done."""
        if self.under_way:
            return
        self.under_way = True
        self._master.is_serving = False
        self._master.deploy.on_stop()
        running = self._master.attempts.all()
        self._asked = [attempt.task for attempt in running]
        self._master.standing.stopping()
        limit = self._master.config.daemon.stop_timeout
        if running:
            asked = "1 task is" if len(running) == 1 else f"{len(running)} tasks are"
            log.info(f"stopping: {asked} asked to leave, for {limit:.0f} s at most")
        for attempt in running:
            self._master.attempts.ask(attempt.task, "leave", "the daemon stops")
        self._master.loop.after(limit, lambda: self._out_of_time(limit))
        self.on_change()

    # ── who does not leave ───────────────────────────────────────────────────────────────────

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
                self._kept.append(worker.running.task)
        self._master.after_drain.cut_off()
        self._finish()

    def _force(self, why: str) -> None:
        if self._forced:
            return
        self._forced = True
        for worker in self._master.workers:
            if worker.running is not None:
                log.warning("ended by force", task=worker.running.task, reason=why)
                self._ended.append(worker.running.task)
            self._master.workers.kill(worker, f"the daemon stopped; {why}")
        self._master.after_drain.cut_off()
        self.on_change()

    # ── the end ──────────────────────────────────────────────────────────────────────────────

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
        elif not self._is_over:
            self._is_over = True
            unowned.tidy(self._master)
            self._say_goodbye()

    def _say_goodbye(self) -> None:
        """Tell who asked for it, as far as they read it soon, and go."""
        answer = {
            "asked": len(self._asked),
            "ended": self._ended[:TOLD],
            "kept": self._kept[:TOLD],
            "counts": {"ended": len(self._ended), "kept": len(self._kept)},
        }
        callers = []
        for number, request in self._callers:
            client = self._master.clients.get(number)
            if client is not None:
                client.reply(request, answer)
                callers.append(client)
        self._go_once_read(callers, LAST_WORDS)

    def _go_once_read(self, callers: list[Client], looks: int) -> None:
        if looks and any(not each.wire.is_closed and each.wire.waiting for each in callers):
            self._master.loop.after(0.01, lambda: self._go_once_read(callers, looks - 1))
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

    # ── telling ──────────────────────────────────────────────────────────────────────────────

    def in_words(self) -> str:
        """How far it is, for systemd's status."""
        left = sum(1 for task in self._asked if task in self._master.attempts)
        if not left:
            return "stopping"
        return f"stopping: {left} of {len(self._asked)} tasks have not left yet"


def plan(master: Master) -> dict[str, Any]:
    """What a stop would interrupt: see ``shutdown`` in ``protocol.control``."""
    tasks = []
    all_running = sorted(master.attempts.all(), key=lambda running: running.task)
    for running in all_running[:TOLD]:
        worker = master.attempts.worker_of(running.task)
        row = master.reader.task(running.task)
        tasks.append(
            {
                "task": running.task,
                "name": running.name,
                "revision": worker.revision.name if worker is not None else None,
                "started": row.started if row is not None else None,
                "saved": master.salvage.saved_at(running),
            }
        )
    limit = master.config.daemon.stop_timeout
    return {"tasks": tasks, "running": len(all_running), "limit": limit}
