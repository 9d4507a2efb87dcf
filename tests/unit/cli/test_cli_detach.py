"""taskd run --detach: ready, refused, and nobody else believed. Real processes, a small daemon."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

SCRIPT = """
import os, signal, sys
from taskd.cli.start import detach
from taskd.posix import pidfile
from taskd.systemd import notify

{first}
def daemon():
{body}

sys.exit(detach.run(daemon))
"""


class Place:
    """Directories of its own for one detached daemon, which is ended with the test."""

    def __init__(self, base: Path) -> None:
        self.logs = base / "logs"
        self.run = base / ("r" * 120)  # a socket's path in here would be too long
        self.base = base
        self.environ = os.environ | {
            "STATE_DIRECTORY": str(base / "state"),
            "RUNTIME_DIRECTORY": str(self.run),
            "LOGS_DIRECTORY": str(self.logs),
        }

    def start(self, body: str, first: str = "") -> subprocess.Popen[str]:
        body = textwrap.indent(textwrap.dedent(body), "    ")
        script = SCRIPT.format(first=first, body=body)
        return subprocess.Popen(
            [sys.executable, "-c", script],
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def pid(self) -> int:
        return int((self.run / "taskd.pid").read_text())


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    for file in (place.run / "taskd.pid", place.base / "pid"):
        if file.exists():
            try:
                pidfd = os.pidfd_open(int(file.read_text()))
            except ProcessLookupError:
                continue
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)


READY_AND_WAITS = """
    print("at work", flush=True)
    pidfile.take(pidfile.wanted())
    notify.tell("READY=1", "STATUS=serving")
    signal.pause()
"""


def test_it_returns_once_the_daemon_is_ready_and_leaves_it_running(place: Place) -> None:
    starter = place.start(READY_AND_WAITS)
    out, err = starter.communicate(timeout=60)
    assert (starter.returncode, out, err) == (0, "", "")
    os.kill(place.pid(), 0)
    assert os.getsid(place.pid()) != os.getsid(0)
    assert (place.logs / "taskd.log").read_text() == "at work\n"
    assert (place.logs / "taskd.log").stat().st_mode & 0o777 == 0o600


def test_the_daemon_keeps_none_of_the_callers_descriptors_and_its_working_directory(
    place: Place,
) -> None:
    place.start(READY_AND_WAITS).communicate(timeout=60)
    assert os.readlink(f"/proc/{place.pid()}/cwd") == "/"
    where = {os.readlink(f"/proc/{place.pid()}/fd/{n}") for n in (0, 1, 2)}
    assert where == {"/dev/null", str(place.logs / "taskd.log")}


def test_a_daemon_that_refuses_to_start_gives_its_reason_on_stderr(place: Place) -> None:
    starter = place.start("print('taskd: locked by 17', file=sys.stderr)\nreturn 1")
    out, err = starter.communicate(timeout=60)
    assert (starter.returncode, out, err) == (1, "", "taskd: locked by 17\n")
    assert not (place.run / "taskd.pid").exists()


def test_only_what_this_daemon_wrote_is_given_as_the_reason(place: Place) -> None:
    place.logs.mkdir()
    (place.logs / "taskd.log").write_text("yesterday's trouble\n")
    starter = place.start("print('today')\nreturn 1")
    assert starter.communicate(timeout=60)[1] == "today\n"


def test_a_daemon_that_is_killed_before_it_is_ready_is_not_taken_for_ready(place: Place) -> None:
    starter = place.start("os.kill(os.getpid(), signal.SIGKILL)")
    err = starter.communicate(timeout=60)[1]
    assert starter.returncode == 1
    assert "ended at once" in err


def test_another_process_cannot_say_that_the_daemon_is_ready(place: Place) -> None:
    starter = place.start(
        """
        if os.fork() == 0:
            notify.tell("READY=1")
            os._exit(0)
        os.wait()
        print("not yet ready")
        return 1
        """
    )
    err = starter.communicate(timeout=60)[1]
    assert (starter.returncode, err) == (1, "not yet ready\n")


PLAIN = ""

AS_ITS_PID_IS_READ = """
reads = os.read
def read_and_interrupt(fd, size):
    found = reads(fd, size)
    os.read = reads
    os.kill(os.getpid(), signal.SIGINT)
    return found
os.read = read_and_interrupt
"""
"""Ctrl-C at the moment at which the daemon's pid has been read, and is nowhere yet."""

AS_THE_WAIT_BEGINS = """
import ctypes, functools, operator, select
polls, kill = select.poll, ctypes.CDLL(None).kill
class Poll:
    def __init__(self):
        self.real = polls()
        self.register = self.real.register
    def poll(self):
        interrupt = functools.partial(kill, os.getpid(), signal.SIGINT)
        return list(map(operator.call, [interrupt, self.real.poll]))[1]
select.poll = Poll
"""
"""Ctrl-C just before the system call, when Python looks for signals no more."""

BLOCKS_SIGTERM = "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})\n"


@pytest.mark.parametrize(
    "first",
    [PLAIN, AS_ITS_PID_IS_READ, AS_THE_WAIT_BEGINS],
    ids=["any time", "as its pid is read", "as the wait begins"],
)
def test_an_interrupted_start_ends_the_daemon_too(place: Place, first: str) -> None:
    """The daemon can be ended only once we hold on to it."""
    told, go = place.base / "told", place.base / "go"
    os.mkfifo(told)
    os.mkfifo(go)
    starter = place.start(
        f"""
        with open({str(told)!r}, "w") as file:
            file.write(str(os.getpid()))
        open({str(go)!r}).read()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {{signal.SIGTERM}})
        signal.pause()
        """,
        BLOCKS_SIGTERM + first,
    )
    daemon = int(told.read_text())
    (place.base / "pid").write_text(str(daemon))
    pidfd = os.pidfd_open(daemon)
    go.write_text("")
    if first is PLAIN:
        starter.send_signal(signal.SIGINT)
    starter.communicate(timeout=60)
    assert starter.returncode != 0
    assert select.select([pidfd], [], [], 60)[0], "the daemon lives on"
    os.close(pidfd)
