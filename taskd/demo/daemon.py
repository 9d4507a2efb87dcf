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

import psutil

from taskd.posix import process

STOP_WITHIN = 10.0
"""Seconds that the daemon has to stop before everything of it is killed."""

_NOT_OURS = ("TASKD_SOCKET", "TASKD_CONFIG", "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID")
"""What the environment may say to a daemon that this one is not to hear."""


class DemoFailed(Exception):
    """The demo could not go on; the text says why."""


class Daemon:
    """``folder``: where everything is kept; it exists. ``sockets``: the directory of its sockets.

    Makes the calling process a subreaper: what outlives the daemon becomes its child.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.sockets = os.path.join(folder, "run")
        self._log = os.path.join(folder, "daemon.log")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, release: str) -> None:
        """Start it with ``release``; it does not serve yet."""
        process.become_subreaper()
        lay_out(self.folder)
        self.point_to(release)
        settings = os.path.join(self.folder, "taskd.toml")
        with open(settings, "w", encoding="utf-8") as file:
            file.write(
                f"[app]\n"
                f"release = {json.dumps(os.path.join(self.folder, 'current'))}\n"
                f"python = {json.dumps(sys.executable)}\n"
                f'modules = ["app.indexer"]\n\n'
                f"[queues.index]\nconcurrency = 16\n\n"
                f"[daemon]\nstop_timeout = 5\n"
            )
        kept = {name: value for name, value in os.environ.items() if name not in _NOT_OURS}
        places = {
            "STATE_DIRECTORY": os.path.join(self.folder, "state"),
            "RUNTIME_DIRECTORY": self.sockets,
            "LOGS_DIRECTORY": os.path.join(self.folder, "logs"),
        }
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "taskd", "run", "--config", settings],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=kept | places,
                start_new_session=True,
            )

    def point_to(self, release: str) -> None:
        """``ln -sfn releases/RELEASE current``"""
        new = os.path.join(self.folder, "current.new")
        os.symlink(os.path.join("releases", release), new)
        os.replace(new, os.path.join(self.folder, "current"))

    def check(self) -> None:
        """Raises DemoFailed if it has ended."""
        status = None if self._process is None else self._process.poll()
        if status is not None:
            raise DemoFailed(f"the daemon ended by itself, with status {status}")

    def stop(self) -> None:
        """Stop it and everything of it. Workers outlive a daemon that died: they are killed."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)  # nothing happens if it has ended
        try:
            status = self._process.wait(STOP_WITHIN)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        deadline = time.monotonic() + STOP_WITHIN
        while status and time.monotonic() < deadline:
            left = psutil.Process().children(recursive=True)
            if not left:
                return
            for each in left:  # they may fork before they die, hence the rounds
                with contextlib.suppress(psutil.Error):
                    each.kill()
            psutil.wait_procs(left, timeout=1)

    def log_tail(self) -> str:
        """The last lines of what it said."""
        lines = ["the daemon's log ends so:"]
        with contextlib.suppress(OSError), open(self._log, encoding="utf-8", errors="replace") as f:
            lines += f.read().splitlines()[-20:]
        return "\n".join(lines)


def lay_out(folder: str) -> None:
    """Write both releases, each with a package ``app``, to ``folder``/releases."""
    source = os.path.join(os.path.dirname(__file__), "releases")
    for release in ("r1", "r2"):
        for part in dict.fromkeys(("r1", release)):  # r2 is r1 with some files replaced
            shutil.copytree(
                os.path.join(source, part),
                os.path.join(folder, "releases", release, "app"),
                ignore=shutil.ignore_patterns("__pycache__"),
                dirs_exist_ok=True,
            )
