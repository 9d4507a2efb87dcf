"""A real daemon in a directory of its own, and the releases that it is given.

The daemon is a child of the demo, in a session of its own: a Ctrl-C at the terminal is the demo's
to handle, which then stops it. Nothing outside the directory is written.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping

import psutil

import taskd
from taskd import errors

START_WITHIN = 30.0
"""Seconds that the daemon has to import the first release and serve."""

STOP_WITHIN = 10.0
"""Seconds that it has to stop before everything of it is killed."""

_NOT_OURS = ("TASKD_SOCKET", "TASKD_CONFIG", "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID")
"""What the environment may say to a daemon that this one is not to hear."""


class DemoFailed(Exception):
    """The demo could not go on; the text says why."""


class Daemon:
    """``folder``: where everything is kept; it exists and is empty.

    ``may_go_on`` is called while a start is waited for, and raises what is to end the waiting.
    """

    def __init__(self, folder: str, may_go_on: Callable[[], None]) -> None:
        self.folder = folder
        self._may_go_on = may_go_on
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def sockets(self) -> str:
        """The directory of its sockets, as ``--socket`` and ``Client`` take it."""
        return self._path("run")

    @property
    def log(self) -> str:
        """The file with what it says."""
        return self._path("daemon.log")

    def lay_out(self, release: str) -> None:
        """Write the releases, ``current`` and the configuration."""
        source = os.path.join(os.path.dirname(__file__), "releases")
        left_out = shutil.ignore_patterns("__init__.py", "__pycache__")
        shutil.copytree(source, self._path("releases"), ignore=left_out)
        self.point_to(release)
        with open(self._path("taskd.toml"), "w", encoding="utf-8") as file:
            file.write(
                f"[app]\n"
                f"release = {json.dumps(self._path('current'))}\n"
                f"python = {json.dumps(sys.executable)}\n"
                f'modules = ["indexer"]\n\n'
                f"[queues.index]\nconcurrency = 16\n\n"
                f"[daemon]\nstop_timeout = 5\n"
            )

    def point_to(self, release: str) -> None:
        """``ln -sfn releases/RELEASE current``"""
        new = self._path("current.new")
        os.symlink(os.path.join("releases", release), new)
        os.replace(new, self._path("current"))

    def start(self) -> None:
        """Start it and wait until it answers. Raises DemoFailed with what it said."""
        kept = {name: value for name, value in os.environ.items() if name not in _NOT_OURS}
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "taskd", "run", "--config", self._path("taskd.toml")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=kept | self._places(),
                start_new_session=True,
            )
        self._wait_until_it_serves()

    def check(self) -> None:
        """Raises DemoFailed if it has ended."""
        status = None if self._process is None else self._process.poll()
        if status is not None:
            raise DemoFailed(f"the daemon ended by itself, with status {status}")

    def stop(self) -> None:
        """Stop it and everything of it; safe to call at any time, and again."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)  # nothing happens if it has ended
        try:
            status = process.wait(STOP_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        if status != 0:
            self._kill_what_is_left()

    def _kill_what_is_left(self) -> None:
        """Workers outlive a daemon that died; this one has no next one that would take them on.

        Those of a round may fork before they die, hence the rounds.
        """
        deadline = time.monotonic() + STOP_WITHIN
        while (left := _processes_with(self._places())) and time.monotonic() < deadline:
            for process in left:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(left, timeout=1)

    def log_tail(self, lines: int = 20) -> list[str]:
        """The last lines of what it said."""
        try:
            with open(self.log, encoding="utf-8", errors="replace") as file:
                return file.read().splitlines()[-lines:]
        except OSError:
            return []

    def _wait_until_it_serves(self) -> None:
        deadline = time.monotonic() + START_WITHIN
        while True:
            self._may_go_on()
            self.check()
            try:
                with taskd.Client(self.sockets) as client:
                    client.status()
                return
            except errors.NoDaemon:
                if time.monotonic() > deadline:
                    raise DemoFailed(f"the daemon did not start in {START_WITHIN:g} s") from None
            time.sleep(0.02)

    def _places(self) -> dict[str, str]:
        return {
            "STATE_DIRECTORY": self._path("state"),
            "RUNTIME_DIRECTORY": self.sockets,
            "LOGS_DIRECTORY": self._path("logs"),
        }

    def _path(self, name: str) -> str:
        return os.path.join(self.folder, name)


def _processes_with(settings: Mapping[str, str]) -> list[psutil.Process]:
    """The processes that have all these in their environment, as all of a daemon's have."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # it is another user's, or gone
            if settings.items() <= process.environ().items():
                found.append(process)
    return found
