"""taskd without a service manager: in the background, and as a container's first process."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import processes
from support.daemon import Daemon
from support.ownpython import add_python
from support.waiting import eventually

import taskd
from taskd.posix import locks, title

APP = """
import time
from taskd import task
from side import gate, mark

@task
def quick() -> str:
    return "done"

@task
def polite(ctx) -> str:
    for i in ctx.each("items", range(2)):
        mark(i)
        while i == 0 and ctx.attempt == 1 and not ctx.stopping:
            time.sleep(0.005)
    return "done"

@task
def deaf() -> str:
    mark("deaf")
    time.sleep(3600)
"""


def prepared(daemon: Daemon) -> None:
    daemon.with_releases(APP, "r1", "r2")


# ── in the background ────────────────────────────────────────────────────────────────────────


class Detached(Daemon):
    """``taskd run --detach``: what was started returns, and the daemon is no child of ours."""

    def start(self, *arguments: str) -> Daemon:
        assert self.spawn("--detach", *arguments).wait(60) == 0, self.log()
        return self

    @property
    def file(self) -> Path:
        return Path(self.runtime, "taskd.pid")

    @property
    def pid(self) -> int:
        return int(self.file.read_text())

    def log(self) -> str:
        path = Path(self.path("logs", "taskd.log"))
        return (path.read_text() if path.exists() else "") + super().log()

    def signal(self, number: int) -> None:
        """And wait for its end."""
        pid = self.pid
        pidfd = os.pidfd_open(pid)
        signal.pidfd_send_signal(pidfd, number)
        assert select.select([pidfd], [], [], 60)[0], "the daemon did not end"
        os.close(pidfd)
        eventually(lambda: not processes.is_alive(pid), "it is reaped")

    def is_locked(self) -> bool:
        fd = os.open(self.file, os.O_RDONLY)
        try:
            return locks.holder(fd) is not None
        finally:
            os.close(fd)

    def end(self) -> None:
        if self.file.exists() and self.is_locked():
            self.signal(signal.SIGTERM)
        super().end()


@pytest.fixture
def detached(new_daemon: Callable[..., Daemon]) -> Detached:
    made = new_daemon(kind=Detached, daemon={"stop_timeout": 0.2, "cancel_grace": 0.2})
    assert isinstance(made, Detached)
    prepared(made)
    made.start()
    return made


def test_the_pid_file_is_locked_for_as_long_as_the_daemon_lives_and_goes_with_it(
    detached: Detached,
) -> None:
    pid = detached.pid
    assert detached.file.stat().st_mode & 0o777 == 0o644
    assert detached.is_locked()
    detached.reload("r2")
    assert detached.pid == pid and detached.is_locked()
    left = Path(f"/proc/{pid}/environ").read_bytes()
    assert b"NOTIFY_SOCKET" not in left, "nobody waits there any more"
    detached.signal(signal.SIGTERM)
    assert not detached.file.exists()


def test_the_pid_file_of_a_killed_daemon_is_stale_and_the_next_start_replaces_it(
    detached: Detached,
) -> None:
    before = detached.pid
    detached.signal(signal.SIGKILL)
    assert detached.file.exists() and not detached.is_locked()
    detached.start()
    assert detached.pid != before and detached.is_locked()


def test_a_second_start_is_refused_and_leaves_the_first_ones_pid_file(detached: Detached) -> None:
    pid = detached.pid
    assert detached.spawn("--detach").wait(60) == 1
    assert f"another taskd (pid {pid}) runs on the state directory" in detached.log()
    assert detached.pid == pid and detached.is_locked()


def test_a_stop_ends_what_does_not_leave_since_nobody_would_adopt_it(detached: Detached) -> None:
    with detached.client() as client:
        deaf = client.submit("deaf")
        worker = detached.reached(deaf.id, "deaf").pid
    detached.signal(signal.SIGTERM)
    assert not processes.is_alive(worker)
    detached.start()
    with detached.client() as client:
        again = client.handle(deaf.id)
        detached.reached(deaf.id, "deaf", attempt=2)
        again.cancel()
        assert again.wait(60).state == "cancelled"


def test_the_log_may_be_copied_and_truncated(detached: Detached) -> None:
    log = Path(detached.path("logs", "taskd.log"))
    assert "ready" in log.read_text()
    os.truncate(log, 0)
    with detached.client() as client:
        assert client.submit("quick").result(30) == "done"
    eventually(lambda: "succeeded task=1" in log.read_text())
    assert "\0" not in log.read_text()


def test_a_detached_start_that_is_refused_exits_1_and_leaves_no_pid_file(
    new_daemon: Callable[..., Daemon],
) -> None:
    made = new_daemon(kind=Detached)
    assert isinstance(made, Detached)
    made.with_releases("raise RuntimeError('not today')", "r1")
    assert made.spawn("--detach").wait(60) == 1
    assert "not today" in made.log()
    assert not made.file.exists()


@pytest.mark.parametrize("imports", [True, False])
def test_a_detached_start_is_as_good_as_the_daemon_of_a_releases_own_python(
    new_daemon: Callable[..., Daemon], imports: bool
) -> None:
    made = new_daemon(kind=Detached, app={"python": ".venv/bin/python"})
    assert isinstance(made, Detached)
    app = APP if imports else "raise RuntimeError('not today')"
    add_python(made.release("r1", app), Path(taskd.__file__).parents[1])
    made.point("r1")
    assert made.spawn("--detach").wait(60) == (0 if imports else 1), made.log()
    assert made.file.exists() == imports
    if not imports:
        assert "not today" in made.log()
        return
    python = made.path("releases", "r1", ".venv", "bin", "python")
    assert os.fsencode(python) in Path(f"/proc/{made.pid}/environ").read_bytes()  # it was exec'd
    with made.client() as client:
        assert client.submit("quick").result(30) == "done"
    made.signal(signal.SIGTERM)


# ── as a container's first process ───────────────────────────────────────────────────────────


class Container(Daemon):
    """In a pid namespace of its own, whose first process `taskd run` is."""

    def command(self, *arguments: str) -> list[str]:
        cage = ["unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc"]
        return [*cage, *super().command(*arguments)]

    def start(self, *arguments: str) -> Daemon:
        self.process = self.spawn(*arguments)
        eventually(lambda: os.path.exists(self.control), "the daemon's socket")
        with self.client() as client:
            client.status()
        return self

    @property
    def first(self) -> int:
        """The container's first process, as seen from here."""
        assert self.process is not None
        (first,) = processes.children(self.process.pid)
        return first

    @property
    def master(self) -> int:
        """The daemon itself, as seen from here, be it before it shows its title or after that."""
        return next(pid for pid in processes.children(self.first) if is_daemon(arguments_of(pid)))

    def stop(self, within: float = 30.0) -> int:
        assert self.process is not None
        os.kill(self.first, signal.SIGTERM)
        return self.process.wait(within)

    def inside(self, script: str) -> str:
        """What a shell says in there, of whose children the first process inherits what is left."""
        enter = ["nsenter", f"--target={self.first}", "--pid", "--mount", "sh", "-c", script]
        return subprocess.run(enter, check=True, capture_output=True, text=True).stdout.strip()


def is_daemon(words: list[str]) -> bool:
    return "run" in words or "".join(words).startswith(title.MASTER)


def arguments_of(pid: int) -> list[str]:
    """None of one that has gone meanwhile."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []


def sleeping(container: Container) -> list[int]:
    """What ``sleep 3600`` the first process has inherited."""
    return [pid for pid in processes.children(container.first) if "3600" in arguments_of(pid)]


@pytest.fixture
def container(new_daemon: Callable[..., Daemon]) -> Iterator[Container]:
    if os.getuid() != 0:
        pytest.skip("needs root to make a pid namespace")
    made = new_daemon(kind=Container)
    assert isinstance(made, Container)
    prepared(made)
    made.start()
    yield made


def test_signals_to_the_first_process_reach_the_daemon(container: Container) -> None:
    with container.client() as client:
        task = client.submit("polite")
        container.reached(task.id, "0")
        container.point("r2")
        os.kill(container.first, signal.SIGHUP)
        eventually(lambda: client.status()["revision"] == "r2", "SIGHUP deploys")
    os.kill(container.first, signal.SIGINT)
    assert container.process is not None
    assert container.process.wait(60) == 0
    container.start()
    with container.client() as client:
        assert client.handle(task.id).result(30) == "done"
        assert client.handle(task.id).status().attempt == 2
        assert container.items(task.id) == ["0", "1"] or container.items(task.id) == ["0", "0", "1"]


def test_what_others_leave_in_the_container_is_reaped_and_never_killed(
    container: Container,
) -> None:
    container.inside("sleep 0.01 & exit")
    container.inside("setsid sleep 3600 >/dev/null 2>&1 & exit")
    with container.client() as client:
        assert client.submit("quick").result(30) == "done"
        (outside,) = eventually(lambda: sleeping(container), "it is the first process's now")
        for pid in processes.children(container.master):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)  # the zygote: what it had is looked for and killed
        assert client.submit("quick").result(30) == "done"
    assert processes.is_alive(outside)
    os.kill(outside, signal.SIGKILL)
    eventually(lambda: not os.path.exists(f"/proc/{outside}"), "the first process reaps it")
    eventually(lambda: not processes.zombies(processes.children(container.first)))


def test_a_daemon_that_is_killed_ends_its_container_with_its_status(container: Container) -> None:
    with container.client() as client:
        task = client.submit("deaf")
        container.reached(task.id, "deaf")
    os.kill(container.master, signal.SIGKILL)
    assert container.process is not None
    assert container.process.wait(60) == 128 + signal.SIGKILL
    eventually(lambda: not container.processes(), "the kernel ends what is left")


def test_a_start_that_is_refused_ends_its_container_with_1(
    new_daemon: Callable[..., Daemon],
) -> None:
    if os.getuid() != 0:
        pytest.skip("needs root to make a pid namespace")
    made = new_daemon(kind=Container)
    made.with_releases("raise RuntimeError('not today')", "r1")
    assert made.spawn().wait(60) == 1
    assert "not today" in made.log()
