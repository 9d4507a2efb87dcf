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
from typing import TYPE_CHECKING

from taskd import log
from taskd.master.deploy import hooks
from taskd.master.loop.loop import Timer
from taskd.model.revision import RevisionState
from taskd.model.upgrade import Phase
from taskd.posix import files

if TYPE_CHECKING:
    from taskd.master.fleet.revision import Revision
    from taskd.master.fleet.running import Running
    from taskd.master.master import Master


AGAIN = 10.0
"""Seconds until a command that could not be started is tried again."""


class AfterDrain:
    """``previous``: the path of the release before; None: nothing is due. ``then``: called once
    the command that runs now is over."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._path = os.path.join(master.places.state, "after-drain")
        self._command: hooks.Command | None = None
        self._again: Timer | None = None
        self.previous: str | None = None
        self.then: Callable[[], None] | None = None

    @property
    def is_running(self) -> bool:
        return self._command is not None

    # ── due or not ───────────────────────────────────────────────────────────────────────────

    def promise(self, previous: str) -> None:
        """A deploy is decided: due once what is older has gone."""
        if self._master.config.hooks.after_drain is None:
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
            files.sync_directory(self._master.places.state)

    # ── running it ───────────────────────────────────────────────────────────────────────────

    def look(self) -> None:
        """Something changed: run it if it is due and its time has come."""
        if self.previous is None or self.is_running or self._again or not self._is_time():
            return
        current = self._master.revisions.current
        words = self._master.config.hooks.after_drain
        if words is None:  # it was taken out of the configuration meanwhile
            self._forget()
        elif current is not None:
            self._run(words, current, self.previous)

    def _is_time(self) -> bool:
        master = self._master
        if not master.is_serving or master.stopping or master.deploy.phase is not Phase.IDLE:
            return False
        if any(r.state is RevisionState.DRAINING for r in master.revisions):
            return False
        return not any(self._is_older(running) for running in master.attempts.all())

    def _is_older(self, running: Running) -> bool:
        """Whether it runs on an older release: in a worker that a daemon before this one left."""
        if self._master.attempts.worker_of(running.task) is not None:
            return False
        row = self._master.reader.task(running.task)
        current = self._master.revisions.current
        return row is not None and current is not None and row.revision != current.name

    def _run(self, words: list[str], current: Revision, previous: str) -> None:
        log.info("hook", hook="after_drain", revision=current.name)
        within = self._master.config.hooks.timeout

        def over(outcome: hooks.Outcome) -> None:
            self._command = None
            self._over(current, outcome)

        try:
            self._command = hooks.Command(self._master, words, current, previous, within, over)
        except OSError as error:  # of descriptors, processes or memory: that passes
            log.warning("after_drain cannot be started yet", why=error.strerror)
            self._again = self._master.loop.after(AGAIN, self._look_again)

    def _look_again(self) -> None:
        self._again = None
        self.look()

    def _over(self, target: Revision, outcome: hooks.Outcome) -> None:
        hooks.report("after_drain", target, outcome)
        self._forget()
        if outcome.failure is None:
            self._master.note = f"after_drain of {target.name} is done"
        else:
            self._master.note = hooks.told("after_drain", target, outcome)
        then, self.then = self.then, None
        if then is not None:
            then()
        self._master.stop.on_change()

    def cut_off(self) -> None:
        """The daemon ends: kill it; it is still due at the next start."""
        if self._command is not None:
            log.warning("after_drain is cut off by the daemon's end, and runs again")
            self._command.stop()
            self._command = None
