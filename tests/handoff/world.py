"""The world of the failure matrix: one daemon, tasks in flight, and what may go wrong around it.

The daemon's state directory is a small file system of its own, so that its disk can really be
full. One world serves for many cells, one after another: what a cell leaves behind (a descriptor,
a blocked signal, a timer, a process) is seen by itself or by the next ones.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

from support import processes
from support.daemon import Daemon, repeated
from support.raw import Raw
from support.waiting import eventually

from taskd.errors import DeployRefused

APP = """
import time
from taskd import task
from side import is_open, mark

def items(ctx, end):
    for i in ctx.each("items", range(1_000_000)):
        mark(i)
        if is_open(end):
            return i
        time.sleep(0.02)

@task(queue="loops")
def stays(ctx, end: str) -> int:
    return items(ctx, end)

@task(queue="loops", on_deploy="checkpoint")
def moves(ctx, end: str) -> int:
    return items(ctx, end)

@task
def quick(n: int) -> int:
    mark("quick")
    return n + 1
"""

ROOM = "64m"
"""Of the state directory's file system."""

ENOUGH = 1024
"""Descriptors that there are again afterwards; fewer than there may be at most, as usual."""

LONG, SHORT = 30.0, 1.5
"""Seconds after which a want (of room, of descriptors) ends: the deploy is to be refused because of
it, or may wait for its end."""


class FaultyDaemon(Daemon):
    """A daemon that can be asked to fail, on a disk that can be full."""

    def __init__(self, **sections: Any) -> None:
        super().__init__(**sections)
        state = self.path("state")
        mounted = ["mount", "-t", "tmpfs", "-o", f"size={ROOM},mode=0755", "taskd-test", state]
        self.own_disk = subprocess.run(mounted, capture_output=True, check=False).returncode == 0

    @property
    def fault(self) -> str:
        return self.path("fault")

    def environment(self) -> dict[str, str]:
        return super().environment() | {"TASKD_FAULT": self.fault}

    def fail_at(self, step: str, kind: str) -> None:
        """The next time that step begins, it fails, once."""
        with open(self.fault + ".new", "w", encoding="ascii") as file:
            file.write(f"{step} {kind}")
        os.replace(self.fault + ".new", self.fault)

    def stopped(self) -> int:
        """The process that stopped at its step; waits for it."""

        def look() -> int | None:
            for pid in self.processes():
                found = processes.state_and_parent(pid)
                if found is not None and found[0] == "T":
                    return pid
            return None

        return eventually(look, "a process stops at its step")

    def clean_up(self) -> None:
        self.kill_everything()
        if self.own_disk:
            subprocess.run(["umount", "--lazy", self.path("state")], check=False)
            self.own_disk = False
        super().clean_up()

    # ── wants ────────────────────────────────────────────────────────────────────────────────

    @contextlib.contextmanager
    def full_disk(self) -> Iterator[None]:
        """No byte can be had on the state directory's file system."""
        name = self.path("state", "filler")
        fd = os.open(name, os.O_WRONLY | os.O_CREAT)
        try:
            for chunk in (1 << 20, 4096):
                with contextlib.suppress(OSError):
                    while os.write(fd, b"\0" * chunk):
                        pass
            yield
        finally:
            os.close(fd)
            os.unlink(name)

    @contextlib.contextmanager
    def no_descriptors(self, pid: int) -> Iterator[None]:
        """That process cannot open another descriptor."""
        _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        taken = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
        free = next(number for number in range(len(taken) + 1) if number not in taken)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (free, hard))
        try:
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_NOFILE, (min(ENOUGH, hard - 1), hard))

    @contextlib.contextmanager
    def own_python(self) -> Iterator[None]:
        """Releases are started by a Python that ``without_python`` can take away."""
        with open(self.path("python"), "w", encoding="utf-8") as file:
            file.write(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        os.chmod(self.path("python"), 0o755)
        self.sections["app"] = {"python": self.path("python")}
        self.write_config()
        try:
            yield
        finally:
            del self.sections["app"]
            self.write_config()

    @contextlib.contextmanager
    def without_python(self) -> Iterator[None]:
        os.unlink(self.path("python"))
        yield


class Followed:
    """A ``follow`` of tasks on a connection of its own; every event is read at its end."""

    def __init__(self, daemon: Daemon, tasks: list[int]) -> None:
        self.tasks = tasks
        self.raw = daemon.raw()
        self.stream = self.raw.start("follow", tasks=tasks)
        self.raw.reply_to(self.stream)

    def check(self, daemon: Daemon) -> None:
        """No event was lost, doubled or out of order."""
        with daemon.raw() as raw:
            stream = raw.start("follow", tasks=self.tasks)
            raw.reply_to(stream)
            history = [item["event"] for item in raw.items(stream) if "event" in item]
        with self.raw:
            found = [item["event"] for item in self.raw.items(self.stream) if "event" in item]
        assert found == history


class World:
    """A daemon that serves, with a connection that is kept for as long as it lives."""

    def __init__(self) -> None:
        self.daemon = FaultyDaemon(queues={"loops": {"concurrency": 40}})
        self.releases = 0
        self.cells = 0
        self.serving = self.release()
        self.daemon.point(self.serving)
        self.daemon.start()
        self.kept = self.daemon.raw()
        self.quiet: Counter[str] | None = None

    def release(self) -> str:
        """A release that nobody has seen yet; its name."""
        self.releases += 1
        name = f"n{self.releases}"
        self.daemon.release(name, APP)
        return name

    def path_of(self, release: str) -> str:
        return self.daemon.path("releases", release)

    def status(self) -> dict[str, Any]:
        return self.kept.ask("status")

    # ── tasks ────────────────────────────────────────────────────────────────────────────────

    def begin(self) -> Work:
        self.cells += 1
        return Work(self, f"end{self.cells}")

    # ── deploys ──────────────────────────────────────────────────────────────────────────────

    def deploy(self, release: str) -> None:
        """A good one. Ends that found no room on the disk are recorded first, when there is some:
        as long as they are not, it is refused."""

        def told() -> dict[str, Any] | None:
            try:
                return self.kept.ask("reload", release=self.path_of(release))
            except DeployRefused as error:
                assert "could not be recorded yet" in str(error)
                return None

        assert eventually(told, "the deploy goes through")["revision"] == release
        self.serving = release

    def restart_after_crash(self) -> None:
        """As a service manager does it."""
        process = self.daemon.process
        assert process is not None
        process.wait(30)
        self.kept.close()
        self.daemon.start()
        self.kept = self.daemon.raw()

    # ── the end of a cell ────────────────────────────────────────────────────────────────────

    def check_quiet(self) -> None:
        """Nothing is left of the deploys: descriptors, processes, signals, files."""
        daemon = self.daemon
        eventually(self._is_quiet, "one revision, its zygote and idle workers are left")
        self._check_descriptors()
        assert not os.path.exists(daemon.path("state", "handoff"))
        assert not os.path.exists(daemon.fault), "the step was reached"
        assert blocked_signals(daemon.pid) == 0

    def _check_descriptors(self) -> None:
        """They are as before; if not, the difference is shown."""
        if self.quiet is None:
            self.quiet = eventually(self._own_descriptors)
        with contextlib.suppress(AssertionError):
            eventually(lambda: self._own_descriptors() == self.quiet)
            return
        assert self._own_descriptors() == self.quiet, "the descriptors are as before"

    def _workers(self) -> int | None:
        found = self.kept.ask("revisions")["revisions"]
        return found[0]["workers"] if len(found) == 1 else None

    def _is_quiet(self) -> bool:
        workers = self._workers()
        found = self.daemon.processes()
        return workers is not None and len(found) == workers + 2 and not self.daemon.zombies()

    def _own_descriptors(self) -> Counter[str] | None:
        """The master's, without the two of each worker; None: a worker came or went just now."""
        workers = self._workers()
        found = self.daemon.descriptors()
        slots = self.daemon.path("state", "slots", "SLOT")
        if workers is None or found.pop(slots, 0) != workers:
            return None
        found["socket"] -= workers
        return found

    def end(self) -> None:
        self.kept.close()
        self.daemon.end()


class Work:
    """Tasks of both kinds in flight, from before a failure to after the deploy that follows it."""

    def __init__(self, world: World, gate: str) -> None:
        self._world = world
        self._gate = gate
        raw = world.kept
        self.tasks = [raw.submit(name, end=gate) for name in ("stays", "moves")]
        for task in self.tasks:
            world.daemon.reached(task, "0")
        self._followed: Followed | None = Followed(world.daemon, self.tasks)

    def forget_follower(self) -> None:
        """The daemon died: its connection with it."""
        assert self._followed is not None
        self._followed.raw.close()
        self._followed = None

    def check(self) -> None:
        """They end, and every item of theirs was done once."""
        daemon = self._world.daemon
        daemon.open_gate(self._gate)
        for task in self.tasks:
            last = daemon.client().handle(task).result(30)
            assert daemon.items(task) == [str(n) for n in range(last + 1)]
        assert repeated([e for e in daemon.effects() if e.task in self.tasks]) == {}
        if self._followed is not None:
            self._followed.check(daemon)


def blocked_signals(pid: int) -> int:
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1], 16) for line in file if line.startswith("SigBlk"))


class Verdict:
    """What a caller of ``reload`` was told: ``refused`` with why, ``served`` or ``crashed``."""

    def __init__(self, what: str, why: str = "") -> None:
        self.what = what
        self.why = why


class Asking:
    """A caller that waits for the verdict."""

    def __init__(self, daemon: Daemon, path: str) -> None:
        self.raw = Raw(daemon.control)
        self._request = self.raw.start("reload", release=path)

    def verdict(self, within: float = 30.0) -> Verdict | None:
        """None: not yet."""
        self.raw.socket.settimeout(within)
        try:
            self.raw.reply_to(self._request)
        except TimeoutError:
            return None
        except DeployRefused as error:
            return Verdict("refused", str(error))
        except ConnectionError:
            return Verdict("crashed")
        return Verdict("served")

    def __enter__(self) -> Asking:
        return self

    def __exit__(self, *_: object) -> None:
        self.raw.close()


def go_on(pid: int) -> None:
    os.kill(pid, signal.SIGCONT)
