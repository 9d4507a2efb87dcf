"""The trial, as the master runs it: a child runs the new image's code on a copy of the live state.

The child gets a sealed copy of the snapshot and the end of a pipe for its verdict, nothing else. If
it fails or hangs, the master kills and reaps it, and the deploy is refused.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

from taskd.errors import DeployRefused
from taskd.master.deploy.guard import Guard
from taskd.master.fleet import Children, Orphans, Revision
from taskd.master.loop import Deadline, Loop, Wire
from taskd.model.endings import death_in_words
from taskd.posix import spawn
from taskd.record import Record
from taskd.upgrade import steps

TRY_WITHIN = 30.0
"""Seconds of the child's own time for adopting the copy."""

Done = Callable[[DeployRefused | None], None]


class Means(Record):
    """What a trial is made with. ``snapshot`` returns the live state, encoded."""

    loop: Loop
    children: Children
    orphans: Orphans
    snapshot: Callable[[], bytes]


class Trial:
    """One trial under way; ``done`` is called exactly once, unless ``stop`` comes before."""

    waits_for = "the trial of the release's taskd"

    def __init__(
        self, means: Means, target: Revision, python: str, guard: Guard, done: Done
    ) -> None:
        """``python``: what the new image will run on. Raises OSError if it cannot be started."""
        self._means = means
        self._target = target
        self._done: Done | None = done
        self._said = bytearray()
        limit = steps.patience(TRY_WITHIN, steps.TRIED)
        ours, theirs = socket.socketpair()
        try:
            argv = [python, "-P", "-m", steps.TRIAL]
            raw, env = means.snapshot(), spawn.environment()
            self._pid = spawn.spawn(argv, raw, env, stdout=theirs.fileno())
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._wire = Wire(means.loop, ours)
        self._wire.on_data = self._said.extend
        self._wire.watch()
        means.children.helpers[self._pid] = guard.around(self._ended)
        self._deadline = Deadline(
            means.loop,
            limit,
            lambda: [self._pid],
            lambda: self._refuse(f"its trial was not done after {limit:g} s"),
        )

    def stop(self) -> None:
        """End the trial; ``done`` is not called. The child is reaped when it has died."""
        self._done = None
        self._deadline.cancel()
        self._wire.close()
        if self._pid in self._means.children.helpers:
            self._means.orphans.kill(self._pid)

    def _finish(self, error: DeployRefused | None) -> None:
        done = self._done
        self.stop()
        if done is not None:
            done(error)

    def _refuse(self, why: str) -> None:
        self._finish(DeployRefused(f"{self._target.name}: {why}"))

    def _ended(self, status: int) -> None:
        """The child was reaped; what it wrote before is in the pipe."""
        self._wire.drain()
        if os.waitstatus_to_exitcode(status) == 0:
            self._finish(None)
            return
        said = self._said.decode(errors="replace").strip()
        self._refuse(f"its trial failed {said or f'without a word: {death_in_words(status)}'}")
