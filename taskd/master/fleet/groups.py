"""A control group for each worker: made before it is forked, killed and removed when it is dead.

The group's name is the worker's id, so that the next master finds it. The worker
joins it before any code of the app's tasks runs; the zygote kills what is left in it. Limits of a
queue are set before a worker is given its first task, and stay: it is given tasks of the same
limits alone, since a limit that is lowered would strike for what earlier tasks have left.

Without a group that the daemon may divide, sessions, marks and parentage do the same (``tree``,
``mark``), and there are no limits. Nothing here ever fails a task: what cannot be done is said
once, and shown by `taskctl doctor`. Nothing is looked for before it is first needed, which is
after the pause of a deploy.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection

from taskd import log
from taskd.config import Config, Limits, size_text
from taskd.errors import ConfigError
from taskd.master.fleet.worker import Worker
from taskd.master.loop import Loop
from taskd.posix import cgroup
from taskd.posix.cleaners import Patience
from taskd.systemd import notify

_PREFIX = "worker-"
_FILES = {"memory": "memory.max", "pids": "pids.max"}
_NO_LIMIT = "max"

INSTEAD = (
    "what a dead worker leaves is found by parentage, session and mark instead, and "
    "memory_max and pids_max of queues have no effect"
)


class Groups:
    """Owns the groups below ``base``. Invariant: only those named after workers are touched."""

    def __init__(self, loop: Loop, config: Config) -> None:
        self._loop = loop
        self._config = config
        self._found: cgroup.Found | None = None
        self._said: set[str] = set()
        self._controllers: set[str] = set()
        self._enabled_for: set[str] = set()
        self._left: set[str] = set()

    @property
    def _base(self) -> str | None:
        """Raises OSError if it is not known yet and cannot be found out now."""
        if self._found is None:
            self._found = cgroup.find(is_service=notify.is_heard())
            if self._found.base is None:
                log.info("no control groups", why=self._found.why)
        return self._found.base

    def path(self, worker: bytes) -> str | None:
        """Where that worker's group is, if it has one. Raises OSError, as ``_base``."""
        return None if self._base is None else os.path.join(self._base, _PREFIX + worker.hex())

    def _say(self, what: str, error: Exception) -> None:
        text = f"{what}: {getattr(error, 'strerror', None) or error}"
        if text not in self._said:
            self._said.add(text)
            log.warning(text)

    # ── a worker begins ──────────────────────────────────────────────────────────────────────

    def make(self, worker: bytes) -> str:
        """The group that it is to join; empty if there is none. Raises OSError if that is not known
        for now: a worker without its group would be one without limits."""
        path = self.path(worker)
        if path is None:
            return ""
        self._enable()
        try:
            os.mkdir(path)
        except FileExistsError:
            return path
        except OSError as error:
            self._say("no control group for a worker", error)
            return ""
        return path

    def on_ungrouped(self, worker: Worker, why: str) -> None:
        """It could not join."""
        worker.is_grouped = False
        self._say("a worker could not join its control group", OSError(why))

    # ── limits ───────────────────────────────────────────────────────────────────────────────

    def _wanted(self) -> set[str]:
        """The controllers that the configuration needs."""
        limits = self._config.limits.values()
        return {name for each in limits for name, value in each._asdict().items() if value}

    def _enable(self) -> None:
        """Have the controllers, as far as they are there."""
        wanted = self._wanted()
        if self._base is None or wanted == self._enabled_for:
            return
        self._enabled_for = wanted
        try:
            there = wanted & cgroup.available(self._base)
            if there:
                cgroup.enable(self._base, there)
            self._controllers = there
        except OSError as error:
            self._say("no limits on workers", error)
            return
        if missing := wanted - there:
            why = f"the kernel has no controller for them in {self._base}"
            self._say(f"no limits on {' and '.join(sorted(missing))}", ConfigError(why))

    def limit(self, worker: Worker, limits: Limits) -> None:
        """Before its first task: ``worker`` is bound to ``limits`` from now on. Raises OSError with
        nothing done."""
        if worker.limits is not None:
            return
        path = self.path(worker.id)
        worker.limits = limits
        if path is None or limits == Limits() or not worker.is_grouped:
            return
        self._enable()
        for name, value in limits._asdict().items():
            if value is not None and name in self._controllers:
                self._write(os.path.join(path, _FILES[name]), str(value))
        if limits.memory is not None and "memory" in self._controllers:
            # All of it or nothing: what is left of a task half of which was killed is no use.
            self._write(os.path.join(path, "memory.oom.group"), "1")

    def regain(self, worker: Worker, limits: Limits) -> None:
        """At a start, for a worker of the master before, which runs a task with ``limits``. Those
        that it has stay: a lower one would strike it down for what was allowed before."""
        path = self.path(worker.id)
        if path is None or not os.path.isdir(path):
            worker.is_grouped = False
            worker.limits = Limits()
            return
        self._enable()
        found = Limits(*(self._read(path, name) for name in Limits._fields))
        if found == Limits():
            self.limit(worker, limits)
        else:
            worker.limits = found

    def _read(self, path: str, name: str) -> int | None:
        """The limit as it is; None: none."""
        try:
            text = cgroup.read(os.path.join(path, _FILES[name])).strip()
        except OSError:
            return None
        return None if text == _NO_LIMIT else int(text)

    def _write(self, path: str, text: str) -> None:
        try:
            cgroup.write(path, text)
        except FileNotFoundError:
            return  # the worker's death is on its way
        except OSError as error:
            self._say(f"cannot set {os.path.basename(path)}", error)

    # ── a worker ends ────────────────────────────────────────────────────────────────────────

    def end(self, worker: bytes, patience: Patience) -> bool:
        """Kill all that is in its group, helpers that clean up last. True while anything in it
        lives. Raises OSError if that cannot be told (out of descriptors)."""
        path = self.path(worker)
        return path is not None and cgroup.end(path, patience)

    def kill(self, worker: bytes, patience: Patience) -> None:
        """``end``, of one that is being killed: that it is over is found when its death is told."""
        with contextlib.suppress(OSError):
            self.end(worker, patience)

    def explain(self, worker: bytes, death: str, limits: Limits | None) -> str | None:
        """Why it died, in words, if the kernel has killed it for want of memory."""
        try:
            path = self.path(worker)
        except OSError:
            return None
        if path is None or not cgroup.oom_kills(path):
            return None
        if limits is None or limits.memory is None:
            return f"{death}; the kernel killed it for want of memory"
        return (
            f"{death}; the kernel killed it, since it used more memory than its queue's "
            f"memory_max, {size_text(limits.memory)}"
        )

    def forget(self, worker: bytes) -> None:
        """It is dead and over: remove its group. Where it cannot be found now, a sweep does it."""
        try:
            path = self.path(worker)
        except OSError:
            return
        if path is not None and not cgroup.remove(path):
            if not self._left:
                self._loop.again(self._remove_left)
            self._left.add(path)

    def _remove_left(self) -> None:
        for path in list(self._left):
            with contextlib.suppress(OSError):
                cgroup.end(path)
            if cgroup.remove(path):
                self._left.discard(path)
        if self._left:
            self._loop.again(self._remove_left)

    def sweep(self, known: Collection[bytes]) -> None:
        """Remove the empty groups of workers that are not ``known`` (a master died over them)."""
        with contextlib.suppress(OSError):
            if self._base is None:
                return
            for name in os.listdir(self._base):
                path = os.path.join(self._base, name)
                # A name that is no worker's id is not of the master's making.
                with contextlib.suppress(OSError, ValueError):
                    if not name.startswith(_PREFIX):
                        continue
                    worker = bytes.fromhex(name.removeprefix(_PREFIX))
                    if worker not in known and not cgroup.is_populated(path):
                        cgroup.remove(path)

    # ── looking ──────────────────────────────────────────────────────────────────────────────

    def checks(self) -> list[dict[str, object]]:
        """What is in force, and if not, why: each {name, ok, text}."""
        try:
            base = self._base
        except OSError as error:
            text = f"not known just now: {error.strerror}"
            return [{"name": "control groups", "ok": False, "text": text}]
        if base is None:
            assert self._found is not None
            text = f"not in force: {self._found.why}; {INSTEAD}"
            return [{"name": "control groups", "ok": False, "text": text}]
        self._enable()
        said = "; ".join(sorted(self._said))
        groups = f"one for each worker, in {self._base}"
        found: list[dict[str, object]] = [
            {
                "name": "control groups",
                "ok": not said,
                "text": f"{groups}; {said}" if said else groups,
            }
        ]
        if wanted := self._wanted():
            missing = wanted - self._controllers
            text = "in force" if not missing else f"not in force: {', '.join(sorted(missing))}"
            found.append({"name": "limits of queues", "ok": not missing, "text": text})
        return found
