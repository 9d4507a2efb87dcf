"""``[hooks] after_drain``: runs once when no task of an older release is left after a deploy.

While the command is due, the file ``after-drain`` in the state directory holds the path of the
release before. It is written when the deploy is decided, and removed when the command has ended,
with success or not. So the command stays due across an exec, the end of the daemon and a power cut:
one that was cut off runs again, one that had ended does not. Several deploys in a row, while tasks
of the first still run, lead to one run, for the last deploy.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from taskd import log
from taskd.config import Config
from taskd.master.attempts import Attempts
from taskd.master.deploy.hooks import Command, Order, Outcome, report, told
from taskd.master.deploy.progress import Progress
from taskd.master.fleet import Children, Revision, Revisions
from taskd.master.loop import Life, Look, Loop, Notice, Storage, Timer
from taskd.model.revision import RevisionState
from taskd.model.upgrade import Phase
from taskd.posix import files

AGAIN = 10.0
"""Seconds until a command that could not be started is tried again."""


class AfterDrain:
    """``previous``: the path of the release before; None: the command is not due. ``command``: the
    one that runs. ``look``: run the command if it is due and its time has come; called whenever
    that may have changed. ``then``: called once when the running command is over. ``over``: told of
    the end of each command. No command begins while a deploy is under way."""

    def __init__(
        self,
        loop: Loop,
        life: Life,
        config: Config,
        state: str,
        storage: Storage,
        revisions: Revisions,
        children: Children,
        attempts: Attempts,
        progress: Progress,
    ) -> None:
        """``state``: the state directory."""
        self._loop = loop
        self._life = life
        self._hooks = config.hooks
        self._state = state
        self._path = os.path.join(state, "after-drain")
        self._storage = storage
        self._revisions = revisions
        self._children = children
        self._attempts = attempts
        self._progress = progress
        self.command: Command | None = None
        self._again: Timer | None = None
        self.previous: str | None = None
        self.then: Callable[[], None] | None = None
        self.over: Notice[[]] = Notice()
        self._ask_look = Look(loop, "after_drain is not started", self._look).ask

    # ── due or not ───────────────────────────────────────────────────────────────────────────

    def promise(self, previous: str) -> None:
        """A deploy is decided: the command is due once older releases have drained."""
        if self._hooks.after_drain is None:
            return
        self.previous = previous
        try:
            files.write_atomically(self._path, previous.encode("utf-8", "surrogateescape"))
        except OSError as error:
            log.warning("after_drain will not survive a restart", why=error.strerror)

    def remember(self) -> None:
        """At a start: read what the daemon before this one had promised."""
        with contextlib.suppress(OSError):
            self.previous = files.read_own(self._path).decode("utf-8", "surrogateescape")

    def _forget(self) -> None:
        self.previous = None
        try:
            os.unlink(self._path)
        except FileNotFoundError:
            return
        except OSError as error:
            log.warning("after_drain runs once more after a restart", why=error.strerror)
            files.sync_directory(self._state)

    # ── running it ───────────────────────────────────────────────────────────────────────────

    def look(self) -> None:
        if self.previous is not None:
            self._ask_look()

    def _look(self) -> None:
        if self.previous is None or self.command or self._again or not self._is_time():
            return
        current = self._revisions.current
        if self._hooks.after_drain is None:  # it was taken out of the configuration meanwhile
            self._forget()
        elif current is not None:
            self._run(Order(self._hooks.after_drain, current, self.previous, self._hooks.timeout))

    def _is_time(self) -> bool:
        """Whether no task of an older release is left, also in unknown workers that a daemon before
        this one left."""
        if (
            not self._life.is_up
            or self._progress.phase is not Phase.IDLE
            or self._storage.damage is not None  # nothing is begun, what ends may not be recorded
            or any(r.state is RevisionState.DRAINING for r in self._revisions)
        ):
            return False
        current = self._revisions.current
        names = {running.row.revision for running in self._attempts.without_worker()}
        return current is None or names <= {current.name}

    def _run(self, order: Order) -> None:
        target: Revision = order.target
        log.info("hook", hook="after_drain", revision=target.name)

        def over(outcome: Outcome) -> None:
            self.command = None
            report("after_drain", target, outcome)
            self._forget()
            self._life.note = (
                f"after_drain of {target.name} is done"
                if outcome.failure is None
                else told("after_drain", target, outcome)
            )
            then, self.then = self.then, None
            if then is not None:
                then()
            self.over()

        def look_again() -> None:
            self._again = None
            self.look()

        try:
            self.command = Command(self._loop, self._children, order, over)
        except OSError as error:  # transient: EMFILE, EAGAIN, ENOMEM
            log.warning("after_drain cannot be started yet", why=error.strerror)
            self._again = self._loop.after(AGAIN, look_again)

    def cut_off(self) -> None:
        """The daemon ends: kill the running command; it is still due at the next start."""
        if self.command is not None:
            log.warning("after_drain is cut off by the daemon's end, and runs again")
            self.command.stop()
            self.command = None
