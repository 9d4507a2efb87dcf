"""Sockets that somebody else holds for the daemon, handed over as systemd does it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from support import processes
from support.daemon import Daemon
from support.managed import Managed
from support.waiting import eventually

import taskd

APP = """
from taskd import task
from side import gate, mark

@task
def quick(ctx, n: int = 0) -> int:
    mark("quick")
    return n
"""

HAND_OVER = """
import os, sys
fds = [int(fd) for fd in sys.argv[1].split(",")]
for n, fd in enumerate(fds):
    os.dup2(fd, 1000 + n)  # out of the way of the numbers that they are to have
for n in range(len(fds)):
    os.dup2(1000 + n, 3 + n)
os.closerange(3 + len(fds), 1000 + len(fds))
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(fds)),
               "LISTEN_FDNAMES": sys.argv[2]}
os.execv(sys.argv[3], sys.argv[3:])
"""


class Given(Daemon):
    """``names``: the sockets that it is given, such as "control"."""

    def __init__(self, names: Sequence[str] = ("control", "submit"), **sections: Any) -> None:
        super().__init__(**sections)
        self.held: dict[str, socket.socket] = {}
        for name in names:
            held = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            held.bind(self.path("run", f"{name}.sock"))
            os.chmod(self.path("run", f"{name}.sock"), 0o640)
            held.listen()
            self.held[name] = held

    def also(self, name: str, held: socket.socket) -> None:
        """One more socket that it is given, of whatever kind."""
        self.held[name] = held

    def spawn(self, *arguments: str) -> subprocess.Popen[bytes]:
        fds = [held.fileno() for held in self.held.values()]
        words = [self.command()[0], "-c", HAND_OVER, ",".join(map(str, fds)), ":".join(self.held)]
        with open(self.path("log"), "ab") as log:
            return subprocess.Popen(
                [*words, *self.command(*arguments)],
                env=self.environment(),
                cwd=self.root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=fds,
                start_new_session=True,
            )

    def clean_up(self) -> None:
        super().clean_up()
        for held in self.held.values():
            held.close()


@pytest.fixture
def given(new_daemon: Callable[..., Daemon]) -> Callable[..., Given]:
    def make(*names: str) -> Given:
        daemon = new_daemon(names, kind=Given) if names else new_daemon(kind=Given)
        assert isinstance(daemon, Given)
        return daemon.with_releases(APP, "r1", "r2")

    return make


def modes(daemon: Daemon) -> dict[str, int]:
    found = {}
    for name in ("control", "submit", "worker"):
        path = daemon.path("run", f"{name}.sock")
        if os.path.exists(path):
            found[name] = os.stat(path).st_mode & 0o777
    return found


def inodes(daemon: Daemon) -> dict[str, int]:
    return {
        name: os.stat(daemon.path("run", name)).st_ino for name in ("control.sock", "submit.sock")
    }


def test_what_is_given_is_used_as_it_is_and_left_at_the_end(given: Callable[..., Given]) -> None:
    daemon = given()
    before = inodes(daemon)
    daemon.start()
    assert modes(daemon) == {"control": 0o640, "submit": 0o640, "worker": 0o600}
    for path in (daemon.control, daemon.submit_socket):
        with taskd.Client(path) as client:
            assert client.submit("quick", {"n": 3}).result(30) == 3
    daemon.reload("r2")
    assert daemon.stop() == 0
    assert inodes(daemon) == before
    assert modes(daemon) == {"control": 0o640, "submit": 0o640}, "the workers' own is gone"
    assert "none of the daemon's" not in daemon.log()


def test_who_connects_before_the_start_in_a_restart_or_after_a_crash_waits_and_is_answered(
    given: Callable[..., Given],
) -> None:
    daemon = given()
    results: list[int] = []

    def submit(n: int) -> None:
        with daemon.client() as client:
            results.append(client.submit("quick", {"n": n}).result(60))

    def meanwhile(action: Callable[[], object], n: int) -> None:
        several = [threading.Thread(target=submit, args=[n + m]) for m in range(5)]
        for each in several:
            each.start()
        action()
        for each in several:
            each.join(60)

    meanwhile(daemon.start, 0)
    meanwhile(daemon.restart, 10)
    daemon.stop()
    meanwhile(daemon.start, 20)
    daemon.kill()
    meanwhile(daemon.start, 30)
    assert sorted(results) == [tens + n for tens in (0, 10, 20, 30) for n in range(5)]
    with daemon.client() as client:
        assert client.status()["states"]["succeeded"] == 20, "none is lost, none is there twice"


def test_either_alone_is_used_and_the_other_is_the_daemons_own(given: Callable[..., Given]) -> None:
    for name, other in (("control", "submit"), ("submit", "control")):
        daemon = given(name).start()
        assert modes(daemon) == {name: 0o640, other: 0o600, "worker": 0o600}
        with taskd.Client(daemon.path("run", f"{name}.sock")) as client:
            assert client.submit("quick").result(30) == 0
        assert daemon.stop() == 0
        assert modes(daemon) == {name: 0o640}


def test_it_goes_over_the_exec_of_deploys_and_is_known_for_what_it_is_afterwards(
    given: Callable[..., Given],
) -> None:
    daemon = given().start()
    with daemon.raw() as kept:
        for name in ("r2", "r1", "r2"):
            assert daemon.reload(name)["revision"] == name
        assert kept.ask("status")["revision"] == "r2"
    assert modes(daemon)["control"] == 0o640, "no mode of ours is given to it"
    assert daemon.stop() == 0
    assert modes(daemon) == {"control": 0o640, "submit": 0o640}


@pytest.fixture
def strange() -> Iterator[dict[str, socket.socket]]:
    made = {
        "internet": socket.create_server(("127.0.0.1", 0)),
        "datagrams": socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM),
        "pair": socket.socketpair()[0],
    }
    yield made
    for each in made.values():
        each.close()


def test_what_is_none_of_ours_is_closed_and_said(
    given: Callable[..., Given], strange: dict[str, socket.socket]
) -> None:
    daemon = given()
    for name, each in strange.items():
        daemon.also(name, each)
    daemon.start()
    for name in strange:
        assert f"none of the daemon's: {name}" in daemon.log()
    expected = f"ListenStream={daemon.control} or ListenStream={daemon.submit_socket} is"
    assert expected in daemon.log()
    other = given().start()
    quiet = lambda each: each.descriptors()["socket"]  # noqa: E731
    eventually(lambda: quiet(daemon) == quiet(other), "what was refused is closed")


def test_variables_for_another_process_mean_nothing(new_daemon: Callable[..., Daemon]) -> None:
    daemon = new_daemon()
    daemon.with_releases(APP, "r1")
    daemon.extra |= {"LISTEN_PID": "1", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "control:submit"}
    daemon.start()
    assert modes(daemon) == {"control": 0o600, "submit": 0o600, "worker": 0o600}


def test_a_file_that_somebody_took_away_is_told_of_and_not_made_anew(
    given: Callable[..., Given],
) -> None:
    daemon = given().start()
    with daemon.raw() as raw:
        os.unlink(daemon.submit_socket)
        said = f"nobody can connect to {daemon.submit_socket}: its socket unit was stopped"
        eventually(
            lambda: any(said in each for each in raw.ask("status")["problems"]), "it is told"
        )
        assert not os.path.exists(daemon.submit_socket)


def test_the_doctor_says_who_holds_the_sockets_and_whether_anybody_watches(
    given: Callable[..., Given], new_daemon: Callable[..., Daemon]
) -> None:
    def checks(daemon: Daemon) -> dict[str, bool]:
        with daemon.raw() as raw:
            return {check["name"]: check["ok"] for check in raw.ask("status")["checks"]}

    alone = new_daemon()
    alone.with_releases(APP, "r1")
    assert checks(alone.start())["sockets"], "nobody could hold them"

    assert checks(given().start())["sockets"]
    managed = new_daemon(kind=Managed, watchdog=30.0)
    managed.with_releases(APP, "r1")
    found = checks(managed.start())
    assert (found["sockets"], found["watchdog"]) == (False, True)


# ── what a service manager runs beside the daemon ────────────────────────────────────────────

TASKCTL = [sys.executable, "-c", "import sys, taskd.cli.taskctl as c; sys.exit(c.main())"]


def begin(daemon: Daemon, *words: str) -> subprocess.Popen[str]:
    """`taskctl` as ExecReload= and ExecStop= run it, and not waited for."""
    return subprocess.Popen(
        [*TASKCTL, "--socket", daemon.control, *words],
        env=daemon.environment() | {"MAINPID": str(daemon.pid)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("words", [["reload"], ["drain", "--unit", "taskd.service"]])
def test_what_runs_beside_a_daemon_that_hangs_and_is_killed_ends_with_it(
    given: Callable[..., Given], words: list[str]
) -> None:
    daemon = given().start()
    ended = f"taskctl: the daemon (pid {daemon.pid}) ended before it answered\n"
    daemon.kill(signal.SIGSTOP)
    beside = begin(daemon, *words)
    eventually(lambda: processes.descriptors(beside.pid)["socket"], "it is connected")
    daemon.kill()
    assert beside.communicate(timeout=20) == ("", ended) and beside.returncode == 3
    late = begin(daemon, *words)
    assert late.communicate(timeout=20) == ("", ended) and late.returncode == 3


def test_the_verdict_of_a_deploy_and_the_outcome_of_a_stop_come_before_that(
    given: Callable[..., Given],
) -> None:
    daemon = given().start()
    daemon.point("r2")
    reloading = begin(daemon, "reload")
    assert reloading.communicate(timeout=60)[0].startswith("r2 serves")
    stopping = begin(daemon, "drain", "--unit", "taskd.service")
    assert stopping.communicate(timeout=60)[0].startswith("tasks asked to leave: 0")
    assert (reloading.returncode, stopping.returncode) == (0, 0)
    assert daemon.process is not None and daemon.process.wait(30) == 0
