"""A real daemon of some checkout: what it costs to submit to it, and to run what was submitted."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

from contrib.bench.checkouts import Cost, environment
from taskd import Client
from taskd.posix import sockets
from taskd.protocol import data
from taskd.protocol.client_side import ClientSide, Reply

PLACES = 4
"""Tasks that run at once."""

AT_ONCE = 64
"""Requests under way at a time."""

APP = """
import os
from taskd import task

@task
def hold() -> None:
    open(os.environ["TASKD_BENCH_GATE"]).close()

@task
def nothing(n: int) -> None:
    pass
"""

CONFIG = """
[app]
release = "{root}/current"
python = "{python}"
modules = ["app"]
memory_reserve = "none"
tasks_per_worker = 1000000

[queues.default]
concurrency = {places}
"""


class Daemon:
    """``root``: its directory, with state/store.db in it if it is to begin with that store."""

    def __init__(self, checkout: str, root: str) -> None:
        self._root = root
        self._gate = os.path.join(root, "gate")
        os.mkfifo(self._gate)
        for name in ("state", "run", "logs", "releases/r1"):
            os.makedirs(os.path.join(root, name), exist_ok=True)
        os.symlink("releases/r1", os.path.join(root, "current"))
        config = CONFIG.format(root=root, python=sys.executable, places=PLACES)
        for name, text in (("releases/r1/app.py", APP), ("taskd.toml", config)):
            with open(os.path.join(root, name), "w", encoding="utf-8") as file:
                file.write(text)
        directories = {
            f"{kind}_DIRECTORY": os.path.join(root, name)
            for kind, name in (("STATE", "state"), ("RUNTIME", "run"), ("LOGS", "logs"))
        }
        with open(os.path.join(root, "log"), "wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "taskd", "run", "--config", f"{root}/taskd.toml"],
                env=environment(checkout, TASKD_BENCH_GATE=self._gate, **directories),
                cwd=root, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.pid = self._process.pid
        self._socket = os.path.join(root, "run", "control.sock")
        deadline = time.monotonic() + 60
        while not os.path.exists(self._socket):
            assert self._process.poll() is None and time.monotonic() < deadline, self._log()
            time.sleep(0.01)
        self.client = Client(self._socket)

    def _log(self) -> str:
        with open(os.path.join(self._root, "log"), encoding="utf-8") as file:
            return file.read()

    def end(self) -> None:
        self.client.close()
        self._process.terminate()
        self._process.wait(60)

    def fill_places(self) -> None:
        """Nothing is started until ``open_gate``."""
        for _ in range(PLACES):
            self.client.submit("hold")
        while self.client.status()["states"].get("running", 0) < PLACES:
            time.sleep(0.01)

    def open_gate(self) -> None:
        os.close(os.open(self._gate, os.O_WRONLY))

    def submit(self, count: int) -> list[int]:
        """So many requests for one task each, some always under way; the ids."""
        side, tasks = ClientSide(), list[int]()
        with sockets.connect(self._socket) as link:
            link.sendall(side.hello())
            sent = 0
            while len(tasks) < count:
                while sent < count and sent - len(tasks) < AT_ONCE:
                    args = data.encode({"n": sent})
                    task = {"submission": os.urandom(16), "name": "nothing", "args": args}
                    link.sendall(side.request("submit", {"tasks": [task]})[1])
                    sent += 1
                side.feed(link.recv(1 << 18))
                while (event := side.next()) is not None:
                    if isinstance(event, Reply):
                        tasks.append(event.ok["tasks"][0]["id"])
        return tasks

    def measured(self) -> tuple[float, float, float]:
        """Seconds so far: the master's CPU, that of all processes, the clock."""
        everybody = [self.pid, *_descendants(self.pid)]
        return _cpu(self.pid), sum(map(_cpu, everybody)), time.monotonic()

    def memory(self) -> dict[str, float]:
        """MiB of the master: now, and at most so far."""
        with open(f"/proc/{self.pid}/status", encoding="ascii", errors="replace") as file:
            fields = dict(line.split(":", 1) for line in file)
        return {name: int(fields[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM")}


def _cpu(pid: int) -> float:
    """Of all its threads that live, in seconds; exact, unlike the ticks of its stat."""
    total = 0
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/schedstat", encoding="ascii") as file:
                total += int(file.read().split()[0])
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return total / 1e9


def _descendants(pid: int) -> Iterator[int]:
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/children", encoding="ascii") as file:
            for child in map(int, file.read().split()):
                yield child
                yield from _descendants(child)


@contextmanager
def running(checkout: str, store: str | None = None) -> Iterator[Daemon]:
    """A daemon in a new directory; ``store``: the file that it begins with (moved there)."""
    root = tempfile.mkdtemp(prefix="taskd-bench-")
    try:
        if store is not None:
            os.mkdir(os.path.join(root, "state"), 0o700)
            shutil.move(store, os.path.join(root, "state", "store.db"))
        daemon = Daemon(checkout, root)
        try:
            yield daemon
        finally:
            daemon.end()
    finally:
        shutil.rmtree(root, ignore_errors=True)


def submits_and_drain(checkout: str, count: int) -> dict[str, Cost]:
    """What it costs to submit ``count`` tasks that do nothing, and to run them all."""
    with running(checkout) as daemon:
        daemon.fill_places()
        before = daemon.measured()
        tasks = daemon.submit(count)
        between = daemon.measured()
        daemon.open_gate()
        daemon.client.wait(tasks[-PLACES:], timeout=600)
        after = daemon.measured()
    return {
        "submit, the master": Cost(between[0] - before[0], between[2] - before[2]),
        "drain, the master": Cost(after[0] - between[0], after[2] - between[2]),
        "drain, all processes": Cost(after[1] - between[1], after[2] - between[2]),
    }


def memory(checkout: str, store: str, tasks: int) -> dict[str, float]:
    """What the master needs on that store, after it has run so many of what waits there."""
    with running(checkout, store) as daemon:
        before = daemon.client.status()["states"].get("succeeded", 0)
        while daemon.client.status()["states"].get("succeeded", 0) < before + tasks:
            time.sleep(0.05)
        daemon.client.tasks(limit=100)
        return daemon.memory()
