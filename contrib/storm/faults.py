"""What the storm does to the daemon, from outside: one method for each kind of action.

Whatever takes time (a deploy, a cancel, the end of a stop) goes on in a thread of its own, so that
the next action falls into it. ``done`` counts what was done and what came of it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

import taskd
from contrib.storm.clients import Clients
from contrib.storm.disk import Disk
from contrib.storm.manager import last_started
from contrib.storm.place import BAD, GOOD, Place, plain_environment
from contrib.storm.plan import Action
from contrib.storm.processes import Family, Process, catches, marked, send
from contrib.storm.submitter import TASKCTL
from taskd.errors import Error

T = TypeVar("T")

LONGEST_STOP = 1.5
LONGEST_FULL = 3.0
SURELY_FREE = 65536
"""Bytes that a full disk may still have free."""

TAIL = 16384
"""Bytes of the file of effects in which a busy worker is looked for."""


class Faults:
    """``calm`` is called once nothing more is to be done: it makes good what can be made good."""

    def __init__(self, place: Place, clients: Clients) -> None:
        self.done: Counter[str] = Counter()
        self.operating = threading.Lock()
        self._place = place
        self._clients = clients
        self._family = Family(place.marker)
        self._disk = Disk(place.path("disk"))
        self._threads: list[threading.Thread] = []
        self._acts: dict[str, Callable[[Action], str | None]] = {
            "kill master": self._kill_master,
            "kill all": self._kill_all,
            "restart": self._restart,
            "kill zygote": self._kill_zygote,
            "kill worker": lambda a: self._signal_one(self._workers(), a, signal.SIGKILL),
            "stop master": self._stop_master,
            "stop zygote": lambda a: self._stop_one(self._keepers(), a),
            "stop worker": lambda a: self._stop_one(self._workers(), a),
            "deploy": lambda a: self._deploy(_one(GOOD, a.dice[0])),
            "reload": lambda a: self._reload(_one(GOOD, a.dice[0])),
            "hangup": lambda a: self._hangup(_one(GOOD, a.dice[0])),
            "rollback": lambda a: self._taskctl(a.kind, "rollback"),
            "drain": self._drain,
            "deploy of a bad release": lambda a: self._deploy(_one(list(BAD), a.dice[0])),
            "reload of a bad release": lambda a: self._reload(_one(list(BAD), a.dice[0])),
            "hangup with a bad release": lambda a: self._hangup(_one(list(BAD), a.dice[0])),
            "cancel": self._cancel,
            "cut connections": lambda a: clients.cut(a.dice[0]),
            "kill client": lambda a: clients.kill(a.dice[0]),
            "fill disk": self._fill,
        }

    def perform(self, action: Action) -> None:
        outcome = self._acts[action.kind](action)
        if outcome is not None:
            self.done[f"{action.kind}: {outcome}"] += 1

    def calm(self) -> None:
        """Wait for what goes on, and let go on what is stopped."""
        for thread in self._threads:
            thread.join()
        for process in marked(self._place.marker):
            send(process, signal.SIGCONT)

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        thread = threading.Timer(seconds, act)
        thread.start()
        self._threads = [each for each in self._threads if each.is_alive()] + [thread]

    # ── processes ────────────────────────────────────────────────────────────────────────────

    def _keepers(self) -> list[Process]:
        return self._family.look(last_started(self._place))[0]

    def _workers(self) -> list[Process]:
        """The busy ones, if there are any; else all."""
        workers = self._family.look(last_started(self._place))[1]
        busy = _pids_in(self._place.seen("effects"))
        return [worker for worker in workers if worker.pid in busy] or workers

    def _master(self) -> Process | None:
        """Who is looked at and then signalled must be the same: another may start in between."""
        pid = last_started(self._place)
        return next((each for each in marked(self._place.marker) if each.pid == pid), None)

    def _signal_master(self, number: int) -> bool:
        master = self._master()
        return master is not None and send(master, number)

    def _kill_master(self, _: Action) -> str:
        return "done" if self._signal_master(signal.SIGKILL) else "there was none"

    def _kill_zygote(self, action: Action) -> str:
        found = self._keepers()
        self._place.tell("kills.jsonl", at=time.monotonic())
        return self._signal_one(found, action, signal.SIGKILL)

    def _kill_all(self, _: Action) -> str:
        """As when the machine loses its power, but for what the kernel had not written yet."""
        found = marked(self._place.marker)
        self._place.tell("kills.jsonl", at=time.monotonic())
        for process in found:
            send(process, signal.SIGKILL)
        return "done"

    def _restart(self, _: Action) -> str:
        """The service manager starts it again, as in `systemctl restart`."""
        master = self._master()
        if master is None:
            return "there was none"
        self._place.tell("stops.jsonl", at=time.monotonic())
        return "done" if send(master, signal.SIGTERM) else "there was none"

    def _stop_master(self, action: Action) -> str:
        if not self._signal_master(signal.SIGSTOP):
            return "there was none"
        self._later(
            action.dice[1] * LONGEST_STOP, lambda: void(self._signal_master(signal.SIGCONT))
        )
        return "done"

    def _signal_one(self, found: list[Process], action: Action, number: int) -> str:
        return "done" if found and send(_one(found, action.dice[0]), number) else "there was none"

    def _stop_one(self, found: list[Process], action: Action) -> str:
        if not found:
            return "there was none"
        process = _one(found, action.dice[0])
        if not send(process, signal.SIGSTOP):
            return "there was none"
        self._later(action.dice[1] * LONGEST_STOP, lambda: void(send(process, signal.SIGCONT)))
        return "done"

    # ── deploys ──────────────────────────────────────────────────────────────────────────────

    def _deploy(self, name: str) -> None:
        self._taskctl(_kind("deploy", name), "deploy", self._place.release(name), name=name)

    def _reload(self, name: str) -> None:
        self._place.point(name)
        self._taskctl(_kind("reload", name), "reload", name=name)

    def _hangup(self, name: str) -> str:
        self._place.point(name)
        master = self._master()
        if master is None:
            return "there was none"
        if not catches(master.pid, signal.SIGHUP):
            return "it was just starting"
        return "done" if send(master, signal.SIGHUP) else "there was none"

    def _taskctl(self, kind: str, *words: str, name: str = "") -> None:
        self._later(0, lambda: self._ask(kind, words, name))

    def _drain(self, action: Action) -> None:
        how = _one(("--checkpoint", "--now"), action.dice[0])
        name = _one(GOOD, action.dice[1])
        self._taskctl(f"drain {how}", "drain", "--revision", name, how)

    def _ask(self, kind: str, words: tuple[str, ...], name: str) -> None:
        code, said = taskctl(self._place, *words)
        self.done[f"{kind}: {_verdict(code, said)}"] += 1
        self._place.tell("deploys.jsonl", kind=kind, name=name, code=code, said=said)
        if code == 0 and name.startswith("bad") and "reload" not in words:
            # `reload` goes by the symlink, which another action may have moved meanwhile
            self._place.tell("findings.jsonl", finding=f"{kind} to {name} succeeded: {said}")

    # ── tasks, clients, disk ─────────────────────────────────────────────────────────────────

    def _cancel(self, action: Action) -> str | None:
        task = self._clients.recent(action.dice[0])
        if task is None:
            return "there was no task"
        self._later(0, lambda: self._cancel_task(task))
        return None

    def _cancel_task(self, task: int) -> None:
        with self.operating:  # who retries what is held looks and acts under it, too
            self._place.tell("cancels.jsonl", task=task)
            try:
                with taskd.Client(self._place.sockets, timeout=20) as client:
                    answer = client.cancel(task)
            except Error:
                self.done["cancel: no answer"] += 1
                return
            at = time.monotonic_ns()
            self._place.tell("cancels.jsonl", task=task, at=at, was=answer["was"])
            self.done[f"cancel: of one that was {answer['was']}"] += 1

    def _fill(self, action: Action) -> str:
        if not self._place.has_disk:
            return "left out: no file system of its own"
        self._place.tell("disk.jsonl", at=time.monotonic(), full=True)
        self._disk.fill(int(action.dice[0] ** 3 * SURELY_FREE))
        self._later(0.3 + action.dice[1] * LONGEST_FULL, self._empty)
        return "done"

    def _empty(self) -> None:
        self._disk.empty()
        self._place.tell("disk.jsonl", at=time.monotonic(), full=False)


def taskctl(place: Place, *words: str) -> tuple[int, str]:
    """Run it; its exit status and what it said."""
    ran = subprocess.run(
        [sys.executable, "-c", TASKCTL, "--socket", place.sockets, *words],
        capture_output=True,
        text=True,
        env=plain_environment(),
        check=False,
    )
    return ran.returncode, (ran.stderr or ran.stdout).strip()


def void(_: object) -> None:
    return None


def _one(among: Sequence[T], dice: float) -> T:
    return among[int(dice * len(among))]


def _kind(verb: str, name: str) -> str:
    return f"{verb} of a bad release" if name.startswith("bad") else verb


VERDICTS = {
    "is under way": "another was under way",
    "connection was lost": "the daemon was killed in it",
    "no daemon": "no daemon",
    "No space": "the disk was full",
    "disk is full": "the disk was full",
    "database or disk is full": "the disk was full",
}


def _verdict(code: int, said: str) -> str:
    if code == 0:
        return "done"
    return next((verdict for text, verdict in VERDICTS.items() if text in said), "refused")


def _pids_in(path: str) -> set[int]:
    """The processes that wrote the last lines."""
    with open(path, "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
        lines = file.read().split(b"\n")[1:-1]
    return {int(line.split(b"\t")[3]) for line in lines}
