"""``[hooks] after_drain``: run once when nothing of an older release is left after a deploy.

That it is due stands in the file ``after-drain`` in the state directory (it holds the path of the
release before), from the moment the deploy is decided until the command has ended, well or not. So
it survives an exec, the end of the daemon and a power cut; a command that was cut off by one of
them runs again, one that had ended does not.
Several deploys in a row, while tasks of the first still run, make one run, for the last of them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from taskd import log
from taskd.config import Config
from taskd.master.attempts import Attempts
from taskd.master.deploy.hooks import Command, Order, Outcome, report, told
from taskd.master.fleet import Children, Revision, Revisions
from taskd.master.loop import Life, Look, Loop, Notice, Storage, Timer
from taskd.model.revision import RevisionState
from taskd.posix import files

AGAIN = 10.0
"""Seconds until a command that could not be started is tried again."""


class AfterDrain:
    """``previous``: the path of the release before; None: nothing is due. ``look``: something may
    have changed: run it if its time has come. ``then``: called once the command that runs now is
    over. ``is_deploying``: no command is begun while that says so. ``over``: told of each end."""

    is_deploying: Callable[[], bool]

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
        self._command: Command | None = None
        self._again: Timer | None = None
        self.previous: str | None = None
        self.then: Callable[[], None] | None = None
        self.over: Notice[[]] = Notice()
        self._ask_look = Look(loop, "after_drain is not started", self._look).ask

    @property
    def is_running(self) -> bool:
        return self._command is not None

    # ── due or not ───────────────────────────────────────────────────────────────────────────

    def promise(self, previous: str) -> None:
        """A deploy is decided: due once what is older has gone."""
        if self._hooks.after_drain is None:
            return
        self.previous = previous
        try:
            files.write_atomically(self._path, previous.encode("utf-8", "surrogateescape"))
        except OSError as error:
            log.warning("after_drain will not survive a restart", why=error.strerror)

    def remember(self) -> None:
        """At a start: what the daemon before this one had promised."""
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
        if self.previous is None or self.is_running or self._again or not self._is_time():
            return
        current = self._revisions.current
        if self._hooks.after_drain is None:  # it was taken out of the configuration meanwhile
            self._forget()
        elif current is not None:
            self._run(Order(self._hooks.after_drain, current, self.previous, self._hooks.timeout))

    def _is_time(self) -> bool:
        """Nothing of an older release is left, also in workers that a daemon before this one left
        and that are not known."""
        if not self._life.is_up or self.is_deploying():
            return False
        if any(r.state is RevisionState.DRAINING for r in self._revisions):
            return False
        rows = [self._storage.reader.task(r.task) for r in self._attempts.without_worker()]
        current = self._revisions.current
        names = {row.revision for row in rows if row is not None}
        return current is None or names <= {current.name}

    def _run(self, order: Order) -> None:
        target: Revision = order.target
        log.info("hook", hook="after_drain", revision=target.name)

        def over(outcome: Outcome) -> None:
            self._command = None
            report("after_drain", target, outcome)
            self._forget()
            if outcome.failure is None:
                self._life.note = f"after_drain of {target.name} is done"
            else:
                self._life.note = told("after_drain", target, outcome)
            then, self.then = self.then, None
            if then is not None:
                then()
            self.over()

        def look_again() -> None:
            self._again = None
            self.look()

        try:
            self._command = Command(self._loop, self._children, order, over)
        except OSError as error:  # transient: of descriptors, processes or memory
            log.warning("after_drain cannot be started yet", why=error.strerror)
            self._again = self._loop.after(AGAIN, look_again)

    def cut_off(self) -> None:
        """The daemon ends: kill it; it is still due at the next start."""
        if self._command is not None:
            log.warning("after_drain is cut off by the daemon's end, and runs again")
            self._command.stop()
            self._command = None
