"""A control group for each worker: made before it is forked, killed and removed when it is dead.

The group's name is the worker's id, so that the next master finds it. The worker joins it before
any code of the app's tasks runs; the zygote kills the processes that are left in it. A queue's
limits are set before the worker's first task and stay: the worker is given tasks of the same limits
alone, since a lowered limit would kill it for memory that earlier tasks have left in use.

Without a control group that the daemon may divide, leftovers are found by session, mark and
parentage (``tree``, ``mark``), and there are no limits. No fault here fails a task: it is logged
once, and shown by `taskctl doctor`. The groups are looked for when they are first needed, which is
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
    """Owns the workers' groups in the daemon's own. Invariant: no other group is touched."""

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
        """The directory of the workers' groups, or None. Raises OSError if it cannot be found out
        now."""
        if self._found is None:
            self._found = cgroup.find(is_service=notify.is_heard())
            if self._found.base is None:
                log.info("no control groups", why=self._found.why)
        return self._found.base

    def path(self, worker: bytes) -> str | None:
        """The directory of that worker's group, or None. Raises OSError, as ``_base``."""
        return None if self._base is None else os.path.join(self._base, _PREFIX + worker.hex())

    def warn(self, what: str, error: Exception) -> None:
        """Log this once; `taskctl doctor` shows it from then on."""
        text = f"{what}: {getattr(error, 'strerror', None) or error}"
        if text not in self._said:
            self._said.add(text)
            log.warning(text)

    # ── a worker begins ──────────────────────────────────────────────────────────────────────

    def make(self, worker: bytes) -> str:
        """Make the group that the worker is to join; empty if there are no groups. Raises OSError
        if that is not known now: a worker without its group would have no limits."""
        path = self.path(worker)
        if path is None:
            return ""
        self._enable()
        try:
            os.mkdir(path)
        except FileExistsError:
            return path
        except OSError as error:
            self.warn("no control group for a worker", error)
            return ""
        return path

    # ── limits ───────────────────────────────────────────────────────────────────────────────

    def _wanted(self) -> set[str]:
        """The controllers that the configuration needs."""
        limits = self._config.limits.values()
        return {name for each in limits for name, value in each._asdict().items() if value}

    def _enable(self) -> None:
        """Enable the controllers that are wanted and available."""
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
            self.warn("no limits on workers", error)
            return
        if missing := wanted - there:
            why = f"the kernel has no controller for them in {self._base}"
            self.warn(f"no limits on {' and '.join(sorted(missing))}", ConfigError(why))

    def limit(self, worker: Worker, limits: Limits) -> None:
        """Bind the worker to ``limits`` before its first task; does nothing for a worker that is
        bound. Raises OSError with nothing done."""
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
            # Kill all processes of the group together: a task that lost some of them is no use.
            self._write(os.path.join(path, "memory.oom.group"), "1")

    def regain(self, worker: Worker, limits: Limits) -> None:
        """At a start, for a worker of the master before, whose task is to have ``limits``. Limits
        that are set stay: a lower one would kill the worker for what was allowed before."""
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
        """The limit that is set, or None."""
        try:
            text = cgroup.read(os.path.join(path, _FILES[name])).strip()
        except OSError:
            return None
        return None if text == _NO_LIMIT else int(text)

    def _write(self, path: str, text: str) -> None:
        try:
            cgroup.write(path, text)
        except FileNotFoundError:
            return  # the group is gone: the worker's death is about to be reported
        except OSError as error:
            self.warn(f"cannot set {os.path.basename(path)}", error)

    # ── a worker ends ────────────────────────────────────────────────────────────────────────

    def end(self, worker: bytes, patience: Patience) -> bool:
        """Kill all processes in the group, those that clean up last. True while one of them lives.
        Raises OSError if that is not known now (no descriptor is left)."""
        path = self.path(worker)
        return path is not None and cgroup.end(path, patience)

    def explain(self, worker: bytes, death: str, limits: Limits | None) -> str | None:
        """``death`` with its cause, if the kernel has killed the worker for want of memory."""
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
        """Remove the group of a worker of which no process is left. If that is not possible now, a
        timer or ``sweep`` does it later."""
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
        """Remove the empty groups of workers that are not ``known``: a master died before it
        removed them."""
        with contextlib.suppress(OSError):
            if self._base is None:
                return
            for name in os.listdir(self._base):
                path = os.path.join(self._base, name)
                # The master made no group whose name is not a worker's id.
                with contextlib.suppress(OSError, ValueError):
                    if not name.startswith(_PREFIX):
                        continue
                    worker = bytes.fromhex(name.removeprefix(_PREFIX))
                    if worker not in known and not cgroup.is_populated(path):
                        cgroup.remove(path)

    # ── looking ──────────────────────────────────────────────────────────────────────────────

    def checks(self) -> list[dict[str, object]]:
        """For `taskctl doctor`: what is in force, and if not, why. Each {name, ok, text}."""
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
