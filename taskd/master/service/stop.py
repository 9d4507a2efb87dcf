"""Stopping: every task is asked to leave at its next safe point, and what has left is kept.

Begun by SIGTERM or SIGINT, or by the request ``shutdown`` (the unit's ExecStop=), which knows what
of the two it is. A task that does not leave within ``[daemon] stop_timeout`` (or until a second
signal) is ended by force, and continues from its last saved point after the next start. In a
restart it is not: the daemon goes and its workers are kept, and the next master adopts them.

A signal does not say which. Under a service manager it is taken as a restart: what a real stop must
not leave behind, the unit sweeps after it (ExecStopPost=, for a daemon that does not get so far).
"""

from __future__ import annotations

from typing import Any

from taskd import log
from taskd.config import Config
from taskd.master.attempts import Attempts
from taskd.master.deploy import AfterDrain
from taskd.master.fleet import Revision, Revisions, Workers, Zygotes
from taskd.master.loop import Answers, Caller, Life, LifeEvent, Look, Loop, Notice, Storage
from taskd.master.recovery import Salvage, Unowned
from taskd.model.worker import WorkerState
from taskd.posix import pidfile
from taskd.systemd import notify

LAST_MOMENTS = 5.0
"""Seconds that zygotes and idle workers have to go before they are killed."""

TOLD = 1000
"""Tasks that a list of an answer names."""

LAST_WORDS = 100
"""Looks, a hundredth of a second apart, at whether the callers have read their answer."""


class Stop:
    """The stop under way, if any. ``keeps``: what does not leave goes on without a daemon.
    ``begun`` is told once. ``look``: a worker, zygote or attempt may be over: is everything?"""

    answers: Answers

    def __init__(
        self,
        loop: Loop,
        life: Life,
        config: Config,
        storage: Storage,
        revisions: Revisions,
        workers: Workers,
        zygotes: Zygotes,
        attempts: Attempts,
        salvage: Salvage,
        unowned: Unowned,
        after_drain: AfterDrain,
    ) -> None:
        self._loop = loop
        self._life = life
        self._limit = config.daemon.stop_timeout
        self._storage = storage
        self._revisions = revisions
        self._workers = workers
        self._zygotes = zygotes
        self._attempts = attempts
        self._salvage = salvage
        self._unowned = unowned
        self._after_drain = after_drain
        self._forced = False
        self._signalled = False
        # A detached daemon has such a socket too, until it is ready, and nobody behind it.
        self.keeps = notify.is_heard() and pidfile.wanted() is None
        self._asked: list[int] = []  # the tasks that were asked to leave
        self._ended: list[int] = []
        self._kept: list[int] = []
        self._callers: list[Caller] = []
        self._is_over = False
        self.begun: Notice[[]] = Notice()
        self.look = Look(loop, "the stop does not go on", self._look).ask

    # ── beginning ────────────────────────────────────────────────────────────────────────────

    def on_signal(self) -> None:
        """Stop; a second signal ends what has not left yet."""
        if self._life.is_stopping and self._signalled:
            self._force("a second signal asked to stop at once")
        self._signalled = True
        self.begin()

    def wish(self, caller: Caller, keep: bool | None) -> None:
        """Stop, and tell ``caller`` once all is over. ``keep``: what happens to tasks that do not
        leave in time (None: as after a signal)."""
        if keep is not None:
            self.keeps = keep
        self._callers.append(caller)
        self.begin()

    def begin(self) -> None:
        """Ask everything to leave, if that has not been done."""
        if self._life.is_stopping:
            return
        self._life.take(LifeEvent.STOP)
        running = self._attempts.all()
        self._asked = [attempt.task for attempt in running]
        self.begun()
        if running:
            asked = "1 task is" if len(running) == 1 else f"{len(running)} tasks are"
            log.info(f"stopping: {asked} asked to leave, for {self._limit:.0f} s at most")
        for attempt in running:
            self._attempts.ask(attempt.task, "leave", "the daemon stops")
        self._loop.after(self._limit, self._out_of_time)
        self.look()

    # ── tasks that do not leave ──────────────────────────────────────────────────────────────

    def _out_of_time(self) -> None:
        why = f"did not leave in {self._limit:.0f} s"
        if not self.keeps:
            self._force(why)
        elif not self._forced:
            for worker in self._workers:
                if worker.running is not None:
                    task = worker.running.task
                    log.warning("kept", task=task, reason=f"{why}; its worker goes on")
                    self._kept.append(task)
            self._after_drain.cut_off()
            self._finish()

    def _force(self, why: str) -> None:
        if self._forced:
            return
        self._forced = True
        for worker in self._workers:
            if worker.running is not None:
                log.warning("ended by force", task=worker.running.task, reason=why)
                self._ended.append(worker.running.task)
            self._workers.kill(worker, f"the daemon stopped; {why}")
        self._after_drain.cut_off()
        self.look()

    # ── the end ──────────────────────────────────────────────────────────────────────────────

    def _look(self) -> None:
        if not self._life.is_stopping:
            return
        for worker in self._workers:
            if worker.state in (WorkerState.IDLE, WorkerState.STARTING):
                self._workers.retire(worker)
        for revision in self._revisions:
            self._retire(revision)
        is_busy = self._after_drain.is_running or any(
            running.attempt and self._attempts.worker_of(running.task)
            for running in self._attempts.all()
        )
        lives = any(revision.zygote.pid is not None for revision in self._revisions)
        if not is_busy and not lives and not list(self._workers):
            self._finish()

    def _retire(self, revision: Revision) -> None:
        if not self._zygotes.retire(revision):
            return
        pid = revision.zygote.pid

        def overdue() -> None:
            if revision.zygote.pid == pid and not self._workers.any_of(revision):
                self._zygotes.kill(revision)

        self._loop.after(LAST_MOMENTS, overdue)

    def _finish(self) -> None:
        if self._storage.writer.pending:
            self._loop.after(0.01, self._finish)
            return
        if self._is_over:
            return
        self._is_over = True
        self._unowned.tidy()
        answer = {
            "asked": len(self._asked),
            "ended": self._ended[:TOLD],
            "kept": self._kept[:TOLD],
            "counts": {"ended": len(self._ended), "kept": len(self._kept)},
        }
        for caller in self._callers:
            self.answers.reply(caller, answer)
        self._go_once_read(LAST_WORDS)

    def _go_once_read(self, looks: int) -> None:
        """Once the callers have read their answer, as far as they do so soon."""
        if looks and not all(self.answers.is_sent(caller) for caller in self._callers):
            self._loop.after(0.01, lambda: self._go_once_read(looks - 1))
        else:
            self._loop.stop()

    # ── telling ──────────────────────────────────────────────────────────────────────────────

    def in_words(self) -> str:
        """How far it is, for systemd's status."""
        left = sum(1 for task in self._asked if task in self._attempts)
        if not left:
            return "stopping"
        return f"stopping: {left} of {len(self._asked)} tasks have not left yet"

    def plan(self) -> dict[str, Any]:
        """What a stop would interrupt: see ``shutdown`` in ``protocol.control``."""
        tasks = []
        all_running = sorted(self._attempts.all(), key=lambda running: running.task)
        for running in all_running[:TOLD]:
            worker = self._attempts.worker_of(running.task)
            row = self._storage.reader.task(running.task)
            tasks.append(
                {
                    "task": running.task,
                    "name": running.name,
                    "revision": worker.revision.name if worker is not None else None,
                    "started": row.started if row is not None else None,
                    "saved": self._salvage.saved_at(running),
                }
            )
        return {"tasks": tasks, "running": len(all_running), "limit": self._limit}
