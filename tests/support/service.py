"""taskd as a service of a test machine, set up and used as an administrator and users would.

The app's tasks write what they do to a trace, one line an item: task, item, pid. It lies in the
tasks' own /tmp, which is below the state directory.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, NamedTuple

from support.machine import Machine
from support.waiting import eventually

APP = """
import os, socket, threading, time
from taskd import Context, task

NAME = {name!r}

def trace(ctx, item):
    with open("/tmp/trace", "a") as file:
        file.write(f"{{ctx.id}} {{item}} {{os.getpid()}} {{NAME}}\\n")

@task(on_deploy="checkpoint")
def count(ctx: Context, to: int, pause: float = 0.02) -> str:
    for number in ctx.each("numbers", range(to)):
        trace(ctx, number)
        time.sleep(pause)
    return NAME

def until(cursor, release):
    number = cursor or 0
    while number < 20 or NAME != release:
        yield number + 1, number
        number += 1

@task(on_deploy="checkpoint")
def count_until(ctx: Context, release: str) -> str:
    "Goes on until it runs on that release."
    for number in ctx.each("numbers", until, release):
        trace(ctx, number)
        time.sleep(0.02)
    return NAME

@task
def wait(ctx: Context, path: str) -> str:
    "Goes on until there is a file of that name in its /tmp."
    trace(ctx, "began")
    while not os.path.exists(path):
        ctx.checkpoint()
        time.sleep(0.02)
    return NAME

def items(cursor, path):
    number = cursor or 0
    while not os.path.exists(path):
        yield number + 1, number
        number += 1

@task
def long(ctx: Context, path: str) -> str:
    "One item after the other, until there is a file of that name."
    for number in ctx.each("numbers", items, path):
        trace(ctx, number)
        time.sleep(0.1)
    return NAME

@task
def stay(ctx: Context, path: str) -> str:
    "The same, and never comes to a safe point."
    trace(ctx, "began")
    while not os.path.exists(path):
        time.sleep(0.02)
    trace(ctx, "ended")
    return NAME

@task
def dial(ctx: Context) -> str:
    "Over the network, to itself."
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()) as client:
            other = server.accept()[0]
            client.sendall(b"hello")
            client.shutdown(socket.SHUT_WR)
            with other:
                return other.makefile().read()

@task
def try_to(ctx: Context, code: str) -> str:
    "What the sandbox says to a piece of Python."
    try:
        exec(code)
    except OSError as error:
        return type(error).__name__
    return "allowed"
"""


class Trace(NamedTuple):
    """One line of the trace."""

    task: str
    item: str
    pid: int
    release: str


class Service:
    """``unit`` on ``machine``, installed as ``app`` (None: the system's one)."""

    def __init__(self, machine: Machine, app: str | None = None) -> None:
        self.machine = machine
        self.app = app
        self.account = f"taskd-{app}" if app else "taskd"
        self.unit = f"taskd@{app}.service" if app else "taskd.service"
        self.home = f"/srv/{app or 'app'}"
        self.config = f"/etc/taskd/{app or 'taskd'}.toml"
        self.temporary = f"/var/lib/{self.account}/tmp"

    def install(self, *options: str) -> str:
        named = ["--name", self.app] if self.app else []
        return self.machine.says("/opt/taskd/bin/taskd", "install", *named, *options)

    def configure(self, name: str = "r1") -> None:
        """As the installation says: a release, and what to run."""
        self.release(name)
        self.link(name)
        text = self.machine.read(self.config)
        assert text.count('"app.tasks"') == 1
        self.machine.write(self.config, text.replace("app.tasks", "app_tasks"))

    def start(self) -> None:
        self.machine.run("systemctl", "enable", "--quiet", "--now", self.unit)

    def set(self, section: str, line: str) -> None:
        """Add a line to a section of the configuration that is there."""
        text = self.machine.read(self.config)
        assert text.count(f"[{section}]\n") == 1
        self.machine.write(self.config, text.replace(f"[{section}]\n", f"[{section}]\n{line}\n"))

    def drop_in(self, *lines: str) -> None:
        """Have these lines in the unit's [Service], as `systemctl edit` does it."""
        path = f"/etc/systemd/system/{self.unit}.d/test.conf"
        self.machine.write(path, "\n".join(["[Service]", *lines, ""]))
        self.machine.run("systemctl", "daemon-reload")

    def release(self, name: str, extra: str = "") -> str:
        """A new release's directory; ``extra``: more lines of its module."""
        path = f"{self.home}/releases/{name}"
        self.machine.write(f"{path}/app_tasks.py", APP.format(name=name) + extra)
        return path

    def link(self, name: str) -> None:
        self.machine.run("ln", "-sfn", f"releases/{name}", f"{self.home}/current")

    def reload(self) -> int:
        """systemctl's exit status."""
        return self.machine.run("systemctl", "reload", self.unit, check=False).returncode

    def admit(self, user: str) -> None:
        self.machine.run("usermod", "--append", "--groups", f"{self.account}-submit", user)

    def ctl(self, *words: str, user: str = "root", check: bool = True) -> str:
        command = ["taskctl", *(["--socket", f"/run/{self.account}"] if self.app else []), *words]
        return self.machine.run(*command, user=user, check=check).stdout.rstrip("\n")

    def submit(self, *words: str, user: str = "root") -> str:
        return self.ctl("submit", *words, user=user)

    def show(self, task: str, user: str = "root") -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.ctl("show", task, "--json", user=user))
        return found

    def result(self, task: str, user: str = "root") -> Any:
        """Wait for a task, which must succeed."""
        self.ctl("wait", task, user=user)
        return self.show(task, user)["result"]

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.ctl("status", "--json"))
        return found

    @property
    def pid(self) -> int:
        return int(self.machine.property(self.unit, "MainPID"))

    @property
    def state(self) -> str:
        return self.machine.property(self.unit, "ActiveState")

    def processes(self) -> list[str]:
        """The pids of all that the service's user runs."""
        find = ("find", "/proc", "-maxdepth", "1", "-regex", "/proc/[0-9]+", "-user", self.account)
        return [path.removeprefix("/proc/") for path in self.machine.says(*find).split()]

    def trace(self) -> list[Trace]:
        text = self.machine.run("cat", f"{self.temporary}/trace", check=False).stdout
        rows = [line.split() for line in text.splitlines(keepends=True) if line.endswith("\n")]
        return [Trace(task, item, int(pid), name) for task, item, pid, name in rows]

    def began(self, *tasks: str) -> dict[str, Trace]:
        """Wait until each task has written a line; the last one of each."""

        def last() -> dict[str, Trace]:
            lines = {line.task: line for line in self.trace()}
            return lines if set(tasks) <= lines.keys() else {}

        return eventually(last, f"the tasks {tasks} have begun")

    def items(self, task: str) -> Counter[str]:
        """How often each item of a task was done."""
        return Counter(line.item for line in self.trace() if line.task == task)

    def let_go(self, path: str) -> None:
        """Let the tasks go on that `wait` for ``path``."""
        self.machine.write(f"{self.temporary}/{path.removeprefix('/tmp/')}", "")
