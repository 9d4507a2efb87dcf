"""The stop: asks every task to leave at its next safe point, waits, and ends the daemon.

SIGTERM, SIGINT or the request ``shutdown`` (the unit's ExecStop=) begin it. A task that does not
leave within ``[daemon] stop_timeout`` (or until a second signal) is ended by force in a stop, and
continues from its last saved point after the next start. In a restart it is kept: the daemon ends,
the worker goes on, and the next master adopts it.

The request tells a stop from a restart; a signal does not. Under a service manager a signal counts
as a restart: after a real stop, the unit ends the workers that are left (ExecStopPost=).
"""

from __future__ import annotations

import functools
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
"""Seconds that zygotes have to end, once asked, before they are killed."""

TOLD = 1000
"""Tasks in each list of an answer."""

IN_DOUBT = 500
"""Times, a hundredth of a second apart, that the stop looks whether the store says yet what came
of a commit. Nobody has been told of it then, and the next start finds it made or not."""

LAST_WORDS = 100
"""Times, a hundredth of a second apart, that the stop looks whether callers read their answer."""


class Stop:
    """``keeps``: workers whose tasks do not leave go on without a daemon. ``begun`` is told once.
    ``look`` is called whenever a worker, zygote or attempt may have ended: the stop may be over."""

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
        # A daemon in the background has a notify socket, too, until it is ready: its launcher's.
        self.keeps = notify.is_heard() and pidfile.wanted() is None
        self._asked: list[int] = []  # the tasks that were asked to leave
        self._ended: list[int] = []
        self._kept: list[int] = []
        self._callers: list[Caller] = []
        self._is_over = False
        self.begun: Notice[[]] = Notice()
        self._ask_look = Look(loop, "the stop does not go on", self._look).ask

    # ── beginning ────────────────────────────────────────────────────────────────────────────

    def on_signal(self) -> None:
        """Stop; a second signal ends what has not left yet."""
        if self._life.is_stopping and self._signalled:
            self._force("a second signal asked to stop at once")
        self._signalled = True
        self.begin()

    def wish(self, caller: Caller, keep: bool | None) -> None:
        """Stop, and answer ``caller`` at the end. ``keep``: tasks that do not leave in time go on
        (True) or are ended (False); None: as after a signal."""
        if keep is not None:
            self.keeps = keep
        self._callers.append(caller)
        self.begin()

    def begin(self) -> None:
        """Ask every running task to leave; a second call does nothing."""
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

    def look(self) -> None:
        if self._life.is_stopping:
            self._ask_look()

    def _look(self) -> None:
        for worker in self._workers:
            if worker.state in (WorkerState.IDLE, WorkerState.STARTING):
                self._workers.retire(worker)
        for revision in self._revisions:
            if self._zygotes.retire(revision):
                late = functools.partial(self._kill_late, revision, revision.zygote.pid)
                self._loop.after(LAST_MOMENTS, late)
        is_busy = self._after_drain.command is not None or any(
            self._attempts.worker_of(running.task) for running in self._attempts.all()
        )
        lives = any(revision.zygote.pid is not None for revision in self._revisions)
        if not is_busy and not lives and not list(self._workers):
            self._finish()

    def _kill_late(self, revision: Revision, pid: int | None) -> None:
        """Kill the zygote ``pid``, which was asked to end, if it has no workers and still lives."""
        if revision.zygote.pid == pid and not self._workers.of(revision):
            self._zygotes.kill(revision)

    def _finish(self, looks: int = IN_DOUBT) -> None:
        writer = self._storage.writer
        if writer.pending and looks:
            left = looks if writer.doubt is None else looks - 1
            self._loop.after(0.01, lambda: self._finish(left))
            return
        if self._is_over:
            return
        self._is_over = True
        self._unowned.tidy(self._answer)

    def _answer(self) -> None:
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
        """Stop the loop once the callers have read their answer, or after ``looks`` looks."""
        if looks and not all(self.answers.is_sent(caller) for caller in self._callers):
            self._loop.after(0.01, lambda: self._go_once_read(looks - 1))
        else:
            self._loop.stop()

    # ── telling ──────────────────────────────────────────────────────────────────────────────

    def in_words(self) -> str:
        """How many tasks have yet to leave, for systemd's STATUS."""
        left = sum(1 for task in self._asked if task in self._attempts)
        if not left:
            return "stopping"
        return f"stopping: {left} of {len(self._asked)} tasks have not left yet"

    def plan(self) -> dict[str, Any]:
        """The tasks that a stop would interrupt: see ``shutdown`` in ``protocol.control``."""
        tasks = []
        all_running = sorted(self._attempts.all(), key=lambda running: running.task)
        for running in all_running[:TOLD]:
            worker = self._attempts.worker_of(running.task)
            tasks.append(
                {
                    "task": running.task,
                    "name": running.name,
                    "revision": worker.revision.name if worker is not None else None,
                    "started": running.row.started,
                    "saved": self._salvage.saved_at(running),
                }
            )
        return {"tasks": tasks, "running": len(all_running), "limit": self._limit}
