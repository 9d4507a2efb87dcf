"""What a caller of `taskd run` leaves behind: blocked signals, closed descriptors, a symlink."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest
from support import processes
from support.daemon import Daemon
from support.waiting import eventually

APP = """
import sys
from taskd import task
from side import gate, mark

@task
def runs_on() -> str:
    return sys.executable

@task
def stays() -> str:
    mark("begun")
    gate("go")
    return "REVISION"
"""

BLOCK = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())"
CLOSE = "os.closerange(0, 3)"


class Called(Daemon):
    """A daemon whose caller does something to itself first."""

    before = "pass"
    python = sys.executable

    def spawn(self, *arguments: str) -> subprocess.Popen[bytes]:
        program = f"import os, sys; {self.before}; os.execv(sys.argv[1], sys.argv[1:])"
        command = [self.python, "-m", "taskd", "run", "--config", self.path("taskd.toml")]
        with open(self.path("log"), "ab") as log:
            return subprocess.Popen(
                [sys.executable, "-c", program, *command, *arguments],
                env=self.environment(),
                cwd=self.root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


class Blocking(Called):
    before = BLOCK


class Closing(Called):
    before = CLOSE


@pytest.fixture
def make(new_daemon: Callable[..., Daemon]) -> Callable[[type[Daemon]], Daemon]:
    """A daemon of that kind, not started yet, whose release is r1."""

    def made(kind: type[Daemon]) -> Daemon:
        daemon = new_daemon(kind=kind)
        return daemon.with_releases(APP, "r1", "r2", "r3")

    return made


def blocked(pid: int) -> int:
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1], 16) for line in file if line.startswith("SigBlk"))


def serves(daemon: Daemon) -> str:
    with daemon.client() as client:
        return str(client.status()["revision"])


def words(pid: int) -> list[str]:
    with open(f"/proc/{pid}/cmdline", encoding="utf-8") as file:
        return file.read().split("\0")


def zygotes(daemon: Daemon) -> list[int]:
    """Found by what they are, since a daemon without a standard error has no log."""
    return [
        pid for pid in processes.children(daemon.pid) if words(pid)[0].startswith("taskd: zygote")
    ]


# ── signals ──────────────────────────────────────────────────────────────────────────────────


def test_a_start_with_every_signal_blocked_stops_when_it_is_told_to(
    make: Callable[[type[Daemon]], Daemon],
) -> None:
    daemon = make(Blocking).start()
    eventually(lambda: blocked(daemon.pid) == 0, "every signal is let through")
    assert daemon.stop() == 0


def test_a_start_with_every_signal_blocked_deploys_by_sighup_and_by_request(
    make: Callable[[type[Daemon]], Daemon],
) -> None:
    daemon = make(Blocking).start()
    task = daemon.client().submit("stays")
    worker = daemon.reached(task.id, "begun").pid
    daemon.point("r2")
    daemon.kill(signal.SIGHUP)
    eventually(lambda: serves(daemon) == "r2", "the SIGHUP has deployed r2")
    assert daemon.reload("r3")["revision"] == "r3"
    eventually(lambda: blocked(daemon.pid) == 0, "the new image lets every signal through")
    assert blocked(worker) == 0
    assert {name: blocked(pid) for name, pid in daemon.zygotes().items() if name != "r2"} == {
        "r1": 0,
        "r3": 0,
    }
    daemon.open_gate("go")
    assert task.result(30) == "r1"
    assert daemon.stop() == 0


# ── descriptors ──────────────────────────────────────────────────────────────────────────────


def standard(pid: int) -> list[str]:
    return [os.readlink(f"/proc/{pid}/fd/{number}") for number in range(3)]


def test_a_start_with_closed_standard_descriptors_has_nothing_else_in_their_place(
    make: Callable[[type[Daemon]], Daemon],
) -> None:
    """A lock or a socket there would be what children write their output to."""
    daemon = make(Closing).start()
    task = daemon.client().submit("stays")
    daemon.reached(task.id, "begun")
    for name in ("r2", "r3"):
        for pid in (daemon.pid, *(found := zygotes(daemon))):
            assert standard(pid) == [os.devnull] * 3
        assert len(found) == (1 if name == "r2" else 2)
        assert daemon.reload(name)["revision"] == name
    daemon.open_gate("go")
    assert task.result(30) == "r1"
    assert daemon.stop() == 0


# ── the Python ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("started", ["by its real path", "through the symlink"])
def test_a_python_that_is_named_through_the_symlink_runs_by_its_real_path(
    make: Callable[[type[Called]], Called], started: str
) -> None:
    """The symlink may name another release by the time that this Python is started again."""
    daemon = make(Called)
    folder, program = os.path.split(sys.executable)
    for name in ("r1", "r2", "r3"):
        os.symlink(os.path.dirname(folder), daemon.path("releases", name, "venv"))
    named = daemon.path("current", "venv", os.path.basename(folder), program)
    daemon.sections["app"] = {"python": named}
    daemon.write_config()
    if started == "through the symlink":
        daemon.python = named
    daemon.start()
    real = os.path.join(os.path.realpath(folder), program)
    assert daemon.client().submit("runs_on").result(30) == real
    daemon.reload("r2")
    assert daemon.client().submit("runs_on").result(30) == real
    assert words(daemon.pid)[0] == real, "the daemon itself, now that it was replaced"
    assert named not in words(daemon.pid), "nor is the way back through the symlink"
