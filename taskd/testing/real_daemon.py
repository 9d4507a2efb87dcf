"""A real daemon for a test run: in a temporary directory, with the code that the tests import.

``taskd.pytest_plugin`` makes one for each process of pytest. It is a child of that process, and the
kernel sends it SIGTERM when the process dies, however it dies: it then stops as any daemon does,
and ends its tasks, workers and zygotes. (The kernel goes by the thread that made it: start it in
the main thread.)

The directory is a short one of its own, since the path of a socket has 107 bytes at most. The
release is the directory of the tests' project; modules are found where this process finds them. A
``taskd.toml`` of the app's, if there is one, says the rest, but for what concerns a machine: hooks,
access, limits of memory.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from taskd.client.blocking import Client
from taskd.errors import NoDaemon

_MACHINES = ("hooks", "access", "daemon", "schedules")
"""Sections of a taskd.toml that say nothing to tests."""

STARTS_WITHIN = 60.0
STOPS_WITHIN = 15.0
CANCELS_WITHIN = 15.0
"""Seconds; longer than the daemon itself takes, by what it is configured with here."""

LOG_SHOWN = 8_000
"""Characters of the daemon's log that an error shows."""

_LONGEST = 60
"""Bytes of the path of a directory for temporary files; else /tmp is used."""

_LAUNCH = """
import os, signal, sys
from taskd.posix import process
process.end_with_parent(int(sys.argv.pop(1)), signal.SIGTERM)
from taskd.cli.entry import taskd
sys.exit(taskd())
"""

_NOT_GIVEN = ("TASKD_", "LISTEN_", "NOTIFY_SOCKET", "WATCHDOG_", "INVOCATION_ID",
              "JOURNAL_STREAM", "STATE_DIRECTORY", "RUNTIME_DIRECTORY", "LOGS_DIRECTORY",
              "PYTEST_")  # fmt: skip
"""How the names of variables begin that are those of another service, or of another daemon."""

_DAEMON = {"orphan_grace": "5s", "stop_timeout": "2s", "cancel_grace": "1s"}
"""Nobody waits long at the end of a test run."""


class DaemonFailed(Exception):
    """The daemon of the tests does not start, or has ended; the text has its log."""


class RealDaemon:
    """``client``: a client of it. ``socket``: where others reach it. ``directory``: all that it
    has, gone after its end."""

    def __init__(
        self, project: str, modules: Sequence[str] = (), config: str | None = None
    ) -> None:
        """Start it. ``config``: a taskd.toml, whose modules are used if ``modules`` are not given.
        Raises DaemonFailed."""
        own = tempfile.gettempdir()
        short = own if len(os.fsencode(own)) <= _LONGEST else "/tmp"
        self.directory = tempfile.mkdtemp(prefix="taskd-", dir=short)
        self.socket = os.path.join(self.directory, "run", "control.sock")
        self._process: subprocess.Popen[bytes] | None = None
        try:
            for name in ("state", "run", "logs"):
                os.mkdir(os.path.join(self.directory, name), 0o700)
            self._configure(project, modules, config)
            self._start(project)
            self.client = Client(self.socket)
            self._until_it_answers()
        except BaseException:
            self.stop()
            raise

    def _configure(self, project: str, modules: Sequence[str], config: str | None) -> None:
        sections: dict[str, Any] = {}
        if config is not None:
            with open(config, "rb") as file:
                sections = tomllib.load(file)
        app = {k: v for k, v in sections.get("app", {}).items() if k != "max_revisions"}
        app |= {"release": project, "python": sys.executable, "memory_reserve": "none"}
        if modules:
            app["modules"] = list(modules)
        if not app.get("modules"):
            raise DaemonFailed(
                "which modules have the tasks? Say so where pytest is configured: "
                'taskd_modules = ["app.tasks"], or taskd_config = "taskd.toml"'
            )
        daemon = sections.get("daemon", {}) | _DAEMON
        kept = {k: v for k, v in sections.items() if k not in _MACHINES}
        with open(self._path("taskd.toml"), "w", encoding="utf-8") as file:
            file.write(_toml(kept | {"app": app, "daemon": daemon}))

    def _start(self, project: str) -> None:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(_NOT_GIVEN)}
        clean |= {
            "STATE_DIRECTORY": self._path("state"),
            "RUNTIME_DIRECTORY": self._path("run"),
            "LOGS_DIRECTORY": self._path("logs"),
            "PYTHONPATH": os.pathsep.join(_search_path()),
        }
        argv = [sys.executable, "-c", _LAUNCH, str(os.getpid()), "run"]
        with open(self._path("log"), "ab") as log:
            self._process = subprocess.Popen(
                [*argv, "--config", self._path("taskd.toml")],
                env=clean,
                cwd=project,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a Ctrl-C is for pytest, which ends it
            )

    def _until_it_answers(self) -> None:
        deadline = time.monotonic() + STARTS_WITHIN
        while not self._answers():
            if not self.is_alive or time.monotonic() > deadline:
                raise DaemonFailed(f"the daemon does not start:\n{self.log()[-LOG_SHOWN:]}")
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            with Client(self.socket, timeout=1.0) as client:
                client.status()
        except NoDaemon:
            return False
        return True

    def _path(self, *names: str) -> str:
        return os.path.join(self.directory, *names)

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None, "it has not been started"
        return self._process.pid

    def log(self) -> str:
        """The daemon's own log."""
        try:
            with open(self._path("log"), encoding="utf-8", errors="replace") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def check(self) -> None:
        """Raises DaemonFailed if it has ended."""
        if not self.is_alive:
            raise DaemonFailed(f"the daemon has ended:\n{self.log()[-LOG_SHOWN:]}")

    def clear(self) -> None:
        """Cancel what is not over, and wait until it is, so that no test meets another's tasks."""
        left: list[int] = []
        for state in ("running", "queued", "scheduled", "held"):
            left += [task.id for task in self.client.tasks(state=state, limit=100_000)]
        for task in left:
            self.client.cancel(task)
        try:
            self.client.wait(left, CANCELS_WITHIN)
        except TimeoutError as error:
            raise DaemonFailed(f"{error}; the daemon's log:\n{self.log()[-LOG_SHOWN:]}") from None

    def stop(self) -> None:
        """End it and all that it has started, and remove its directory."""
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(STOPS_WITHIN)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)  # what it has started ends after orphan_grace
                process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


def _search_path() -> list[str]:
    """Where this process finds modules, without what every Python has."""
    paths = sysconfig.get_paths()
    every = {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    found = [os.path.abspath(each) for each in sys.path]
    return [
        each
        for each in found
        if each not in every and not each.endswith(("lib-dynload", ".zip")) and os.path.isdir(each)
    ]


def _toml(sections: Mapping[str, Any], prefix: str = "") -> str:
    """Tables of texts, numbers, flags and lists of these, as ``tomllib`` reads them."""
    own = [f"{_text(k)} = {_text(v)}" for k, v in sections.items() if not _is_table(v)]
    parts = [f"[{prefix}]"] * bool(prefix) + own
    for name, table in sections.items():
        if _is_table(table):
            parts.append(_toml(table, ".".join([*filter(None, [prefix]), _text(name)])))
    return "\n".join(parts) + "\n"


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _is_table(value: Any) -> bool:
    return isinstance(value, dict)
