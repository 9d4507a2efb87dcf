"""The trial, seen from the master: run the new image's code on a copy of the live state.

The child (``takeover.trial``) gets a sealed copy of the snapshot and the end of a pipe for its
verdict, nothing else. Whatever goes wrong, it alone is killed and reaped.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from taskd.errors import DeployRefused
from taskd.master.loop.deadline import Deadline
from taskd.master.loop.wire import Wire
from taskd.model.endings import death_in_words
from taskd.model.upgrade import Phase
from taskd.posix import spawn
from taskd.upgrade import steps

if TYPE_CHECKING:
    from taskd.master.fleet.revision import Revision
    from taskd.master.master import Master

TRY_WITHIN = 30.0
"""Seconds of its own time that the new image's code has to adopt the copy."""


class Trial:
    """One trial under way; ``done`` is called exactly once, unless ``stop`` comes before."""

    def __init__(
        self,
        master: Master,
        target: Revision,
        python: str,
        done: Callable[[DeployRefused | None], None],
    ) -> None:
        """``python``: what the new image will run on. Raises OSError if it cannot be started."""
        self._master = master
        self._target = target
        self._python = python
        self._done: Callable[[DeployRefused | None], None] | None = done
        self._said = bytearray()
        self._pid = 0
        self._limit = steps.patience(TRY_WITHIN, steps.TRIED)
        self._start()
        self._deadline = Deadline(master.loop, self._limit, lambda: [self._pid], self._overdue)

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        try:
            from taskd.handoff.dump import dump

            argv = [self._python, "-P", "-m", steps.TRIAL]
            raw = dump(self._master, [], Phase.ADOPTING)
            env = spawn.environment()
            self._pid = spawn.spawn(argv, raw, env, stdout=theirs.fileno())
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._wire = Wire(self._master.loop, ours)
        self._wire.on_data = self._said.extend
        self._wire.start()
        self._master.helpers[self._pid] = self._master.deploy.bounded(self._ended)

    def stop(self) -> None:
        """Nobody wants to know any more; the child is reaped when it has died."""
        self._done = None
        self._deadline.cancel()
        self._wire.close()
        if self._pid in self._master.helpers:
            self._master.kill(self._pid)

    def _finish(self, error: DeployRefused | None) -> None:
        done = self._done
        self.stop()
        if done is not None:
            done(error)

    def _overdue(self) -> None:
        why = f"{self._target.name}: its trial was not done after {self._limit:g} s"
        self._finish(DeployRefused(why))

    def _ended(self, status: int) -> None:
        """It was reaped; what it wrote before is in the pipe."""
        self._wire.drain()
        if os.waitstatus_to_exitcode(status) == 0:
            self._finish(None)
            return
        told = (
            self._said.decode(errors="replace").strip()
            or f"without a word: {death_in_words(status)}"
        )
        self._finish(DeployRefused(f"{self._target.name}: its trial failed {told}"))
