"""The service manager of a storm: starts the daemon, and again at once whenever it dies.

A process of its own. Like systemd (Restart=always, RestartSec=0) it is a subreaper, so that what a
dead master leaves behind becomes its child, and it kills nothing. SIGTERM has it stop the daemon
and end with its exit status. Each start and end is a record in ``seen/manager.jsonl``.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from types import FrameType

from contrib.storm.place import Place, load

PR_SET_CHILD_SUBREAPER = 36


def last_started(place: Place) -> int | None:
    """The pid of the daemon that was started last, if it has not ended."""
    with open(place.seen("manager.jsonl"), "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - 1000))
        last: dict[str, int] = json.loads(file.read().splitlines()[-1])
    return last.get("started")


class Manager:
    """``_master``: the pid of the daemon, None while there is none."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._master: int | None = None
        self._stopping = False
        self._log = os.open(
            place.path("daemon", "log"), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        )

    def run(self) -> int:
        """Until the daemon has been stopped; its exit status, as a shell would have it."""
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        signal.signal(signal.SIGTERM, self._stop)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        self._start()
        while True:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            pid, status = os.waitpid(-1, 0)
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            if pid != self._master:
                continue  # what a master before has left behind
            code = os.waitstatus_to_exitcode(status)
            self._tell(ended=pid, status=code)
            if self._stopping:
                return code & 0xFF
            self._start()

    def _start(self) -> None:
        words = [sys.executable, "-m", "taskd", "run"]
        words += ["--config", self._place.path("daemon", "taskd.toml")]
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self._master = os.posix_spawn(
            sys.executable,
            words,
            self._place.environment(),
            file_actions=[
                (os.POSIX_SPAWN_DUP2, null, 0),
                (os.POSIX_SPAWN_DUP2, self._log, 1),
                (os.POSIX_SPAWN_DUP2, self._log, 2),
            ],
            setsid=True,
            setsigmask=[],
        )
        os.close(null)
        self._tell(started=self._master)

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True
        if self._master is not None:
            os.kill(self._master, signal.SIGTERM)

    def _tell(self, **what: int) -> None:
        self._place.tell("manager.jsonl", at=time.monotonic(), **what)


if __name__ == "__main__":
    sys.exit(Manager(load(sys.argv[1])).run())
