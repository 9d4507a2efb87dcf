"""A real daemon in a directory of its own, and the releases that it is given.

The daemon is a child of the demo, in a session of its own: a Ctrl-C at the terminal is the demo's
to handle, which then stops it. Nothing outside the directory is written.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from pathlib import Path
from subprocess import DEVNULL, Popen, TimeoutExpired

from taskd.posix import process, tree

STOP_WITHIN = 10.0  # seconds that the daemon has before everything of it is killed

# What the environment may say to a daemon, and this one is not to hear.
_NOT_OURS = ("TASKD_SOCKET", "TASKD_CONFIG", "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID")


class Daemon:
    """``folder``: where everything is kept; it exists. ``sockets``: the directory of its sockets.

    Makes the calling process a subreaper: what outlives the daemon becomes its child.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sockets = str(folder / "runtime")
        self._log = folder / "daemon.log"
        self._process: Popen[bytes] | None = None

    def start(self, release: str) -> None:
        """Start it with ``release``; it does not serve yet."""
        process.become_subreaper()
        lay_out(self.folder)
        self.point_to(release)
        settings = self.folder / "taskd.toml"
        settings.write_text(
            f"[app]\nrelease = {json.dumps(str(self.folder / 'current'))}\n"
            'modules = ["app.indexer"]\n'
            "[queues.index]\nconcurrency = 16\n"
            "[daemon]\nstop_timeout = 5\n"
        )
        environ = {name: value for name, value in os.environ.items() if name not in _NOT_OURS}
        for name in ("STATE", "RUNTIME", "LOGS"):
            environ[f"{name}_DIRECTORY"] = str(self.folder / name.lower())
        command = [sys.executable, "-m", "taskd", "run", "--config", str(settings)]
        with self._log.open("ab") as log:
            self._process = Popen(
                command, stdin=DEVNULL, stdout=log, stderr=log, env=environ, start_new_session=True
            )

    def point_to(self, release: str) -> None:
        """``ln -sfn releases/RELEASE current``"""
        new = self.folder / "current.new"
        new.symlink_to(f"releases/{release}")
        new.replace(self.folder / "current")

    def check(self) -> None:
        """Raises ChildProcessError if it has ended."""
        if self._process is not None and (status := self._process.poll()) is not None:
            raise ChildProcessError(f"the daemon ended by itself, with status {status}")

    def stop(self) -> None:
        """Stop it and everything of it. Workers outlive a daemon that died: they are killed."""
        if self._process is None:
            return
        self._process.terminate()  # nothing happens if it has ended
        with contextlib.suppress(TimeoutExpired):
            self._process.wait(STOP_WITHIN)
        tree.kill_all()

    def log_tail(self) -> str:
        """The last lines of what it said."""
        lines = ["the daemon's log ends so:"]
        with contextlib.suppress(OSError):
            lines += self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:]
        return "\n".join(lines)


def lay_out(folder: Path) -> None:
    """Write both releases, each with a package ``app``, to ``folder``/releases."""
    source = Path(__file__).parent / "releases"
    for release, part in (("r1", "r1"), ("r2", "r1"), ("r2", "r2")):  # r2 replaces one file of r1
        app = folder / "releases" / release / "app"
        unwanted = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source / part, app, ignore=unwanted, dirs_exist_ok=True)
