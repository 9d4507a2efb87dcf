"""One of the app's own commands around a deploy: ``[hooks] before`` or ``[hooks] after_drain``.

The master spawns the command (never forks) and reaps it. It runs in the directory of the release
that it is for, in a session of its own, with the release's environment and with

    TASKD_RELEASE    the release's directory
    TASKD_REVISION   its name
    TASKD_PREVIOUS   the directory of the release that served before it

A command is over when it is reaped; the master then kills the processes left in its session. A
command that exceeds ``[hooks] timeout``, or whose deploy is over, is killed with its whole session.
When it is over, its output (stdout and stderr) goes to the daemon's log, and to the clients that
wait for the deploy.

Invariant: no exec while such a command runs, since the next image would not know it.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Sequence

from taskd import log
from taskd.master.fleet import Children, Revision
from taskd.master.loop import READ, Loop
from taskd.posix import spawn, tree
from taskd.record import Record
from taskd.revision import release

OUTPUT = 64 * 1024
"""How many bytes of a command's output are kept, counted from its end."""

CHUNK = 64 * 1024
READS = 32
"""Reads after the command's end, at most: more than a pipe can hold."""

TAIL_LINES = 5
TAIL_LENGTH = 600
"""Lines and characters of the output that a refusal shows."""

_IN_DIRECTORY = 'cd "$1" && shift && exec "$@"'


class Outcome(Record):
    """``failure``: what went wrong in words, or None. ``output``: what it wrote."""

    failure: str | None
    output: str


Done = Callable[[Outcome], None]


class Output:
    """The last OUTPUT bytes of what a command writes, and how many were dropped before them."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self._dropped = 0

    def take(self, data: bytes) -> None:
        self._kept += data
        if (over := len(self._kept) - OUTPUT) > 0:
            del self._kept[:over]
            self._dropped += over

    def text(self) -> str:
        said = f"({self._dropped} bytes before this were dropped)\n" if self._dropped else ""
        return said + self._kept.decode("utf-8", "replace")


class Order(Record):
    """``words``: the command and its arguments. ``target``: the release that it is for.
    ``previous``: the directory of the release that served before. ``within``: seconds."""

    words: Sequence[str]
    target: Revision
    previous: str
    within: float


class Command:
    """One command under way; ``done`` is called exactly once, unless ``stop`` comes before."""

    def __init__(self, loop: Loop, children: Children, order: Order, done: Done) -> None:
        """Raises OSError if it cannot be started."""
        self._loop = loop
        self._helpers = children.helpers
        self._done: Done | None = done
        self._output = Output()
        target = order.target
        env = release.environment(target.zygote.python, target.app.environment) | {
            "TASKD_RELEASE": target.path,
            "TASKD_REVISION": target.name,
            "TASKD_PREVIOUS": order.previous,
        }
        argv = ["/bin/sh", "-c", _IN_DIRECTORY, "sh", target.path, *order.words]
        self._pipe, theirs = os.pipe2(os.O_CLOEXEC)
        try:
            self._pid = spawn.spawn(argv, b"", env, stdout=theirs, stderr=theirs)
        except BaseException:
            os.close(self._pipe)
            raise
        finally:
            os.close(theirs)
        os.set_blocking(self._pipe, False)
        loop.watch(self._pipe, READ, self._on_ready)
        self._helpers[self._pid] = self._ended
        overdue = f"it was not done after {order.within:g} s ([hooks] timeout), and was killed"
        self._deadline = loop.after(order.within, lambda: self._finish(overdue))

    def stop(self) -> None:
        """Kill the command and its session; it is reaped when it has died."""
        self._done = None
        self._deadline.cancel()
        self._close()
        if self._pid in self._helpers:
            self._kill()

    def _kill(self) -> None:
        """Kill the group first: that needs no descriptor, and there may be none left."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, signal.SIGKILL)
        with contextlib.suppress(OSError, ImportError):
            tree.kill_session(self._pid)

    def _finish(self, failure: str | None) -> None:
        for _ in range(READS):
            if not self._read():
                break
        done = self._done
        self.stop()
        if done is not None:
            done(Outcome(failure, self._output.text()))

    def _ended(self, status: int) -> None:
        """It was reaped: kill what it left behind, which may still write into the pipe."""
        self._kill()
        failure, code = None, os.waitstatus_to_exitcode(status)
        if code < 0:
            failure = f"it was killed by {signal.Signals(-code).name}"
        elif code:
            failure = f"it ended with exit status {code}"
        self._finish(failure)

    def _on_ready(self, _: int) -> None:
        self._read()

    def _read(self) -> bool:
        """Take what the command has written. True if there may be more."""
        if self._pipe < 0:
            return False
        try:
            data = os.read(self._pipe, CHUNK)
        except BlockingIOError:
            return False
        self._output.take(data)
        if not data:
            self._close()
        return bool(data)

    def _close(self) -> None:
        if self._pipe >= 0:
            self._loop.watch(self._pipe, 0, self._on_ready)
            os.close(self._pipe)
            self._pipe = -1


def report(hook: str, target: Revision, outcome: Outcome) -> None:
    """Write the command's output and its end to the daemon's log."""
    for line in outcome.output.splitlines():
        log.info(f"{hook}: {line}")
    if outcome.failure is None:
        log.info("hook done", hook=hook, revision=target.name)
    else:
        log.error("hook failed", hook=hook, revision=target.name, why=outcome.failure)


def told(hook: str, target: Revision, outcome: Outcome) -> str:
    """The failure in one sentence, with the last lines of the output."""
    lines = [line.strip() for line in outcome.output.splitlines() if line.strip()]
    tail = " | ".join(lines[-TAIL_LINES:])[-TAIL_LENGTH:]
    last = f"; the last of its output: {tail}" if tail else "; it wrote nothing"
    return f"{target.name}: [hooks] {hook} failed: {outcome.failure}{last}"
