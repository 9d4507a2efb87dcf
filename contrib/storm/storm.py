"""One storm from its beginning to its verdict.

lay out → start → [submit, follow, operate, actions as planned] → calm → one good deploy →
wait until all has ended → fetch everything → stop → nothing may be left → check
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import taskd
from contrib.storm import busy, clientprocess, history, plan, report
from contrib.storm.checker import GUARD, check
from contrib.storm.clients import Clients
from contrib.storm.collect import collect
from contrib.storm.faults import Faults, taskctl
from contrib.storm.operating import Operator, wait_until_all_ended
from contrib.storm.options import Options
from contrib.storm.place import GOOD, Place, make
from contrib.storm.processes import marked, send
from contrib.storm.report import Outcome
from taskd.errors import Error

SERVES_WITHIN = 60.0
ENDS_WITHIN = 180.0
"""Seconds after the storm until the last task must have ended."""

STOPS_WITHIN = 60.0
SWEPT_WITHIN = 150.0
A_DAY = 86400.0

Beside = Callable[[Place], AbstractContextManager[object]]


def end_in_order() -> None:
    """Let SIGTERM and Ctrl-C end this program by an exception, so that nothing is left behind."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit("ended by a signal"))


def run(options: Options, beside: Beside = nullcontext) -> Outcome:
    """Raise it and judge what came of it. Everything is gone afterwards, but for ``state``.

    ``beside``: a context for while it rages, made with the place.
    """
    root = options.state or tempfile.mkdtemp(prefix="taskd-storm-")
    place = make(root, options.disk, options.lose)
    kept = options.state is not None
    try:
        outcome = _Storm(place, options).run(beside)
        kept = kept or bool(outcome.violations)
        return outcome
    finally:
        _kill_all(place)
        if kept:
            print(f"kept in {root}: `python -m contrib.storm.checker {root}` checks it again")
            _keep_disk(place)
        place.unmount()
        if not kept:
            shutil.rmtree(root, ignore_errors=True)


class _Storm:
    def __init__(self, place: Place, options: Options) -> None:
        self._place = place
        self._options = options
        rates = {kind: rate for kind, rate in options.rates.items() if kind != "submission"}
        self._plan = plan.actions(options.seed, options.minutes * 60, rates)
        self._began = time.monotonic()
        self._manager = clientprocess.spawn("manager", place.root)

    def run(self, beside: Beside) -> Outcome:
        print(f"plan {plan.digest(self._plan)}: {len(self._plan)} actions", flush=True)
        self._wait_until_it_serves()
        with taskd.Client(self._place.sockets) as client:
            guard = client.submit(GUARD, {}, delay=A_DAY).id
        rate = self._options.rates["submission"]
        clients = Clients(self._place, self._options.seed, rate)
        try:
            faults, retried = self._rage(clients, guard, beside)
        finally:
            clients.end()
        self._stop()
        found = history.read(self._place.path("seen"))
        figures = report.figures(found, retried, time.monotonic() - self._began)
        done = faults.done
        with open(self._place.seen("lost"), encoding="utf-8") as lost:
            done["lose the answer of a commit"] += sum(1 for _ in lost)
        return Outcome(self._options, plan.digest(self._plan), done, figures, check(found))

    def _rage(self, clients: Clients, guard: int, beside: Beside) -> tuple[Faults, int]:
        faults = Faults(self._place, clients)
        operator = Operator(self._place, faults.operating)
        operator.start()
        with beside(self._place), busy.loops(self._options.busy):
            self._act(faults)
        faults.calm()
        clients.end_submitting()
        self._deploy_once_more()
        if not wait_until_all_ended(self._place, guard, ENDS_WITHIN):
            print("not everything has ended in time")
        operator.end()
        self._place.tell("cancels.jsonl", task=guard)
        with taskd.Client(self._place.sockets) as client:
            client.cancel(guard)
        collect(self._place)
        return faults, operator.retried

    def _act(self, faults: Faults) -> None:
        began = time.monotonic()
        for action in self._plan:
            time.sleep(max(0.0, began + action.at - time.monotonic()))
            faults.perform(action)
        time.sleep(max(0.0, began + self._options.minutes * 60 - time.monotonic()))

    def _wait_until_it_serves(self) -> None:
        deadline = time.monotonic() + SERVES_WITHIN
        while True:
            try:
                with taskd.Client(self._place.sockets) as client:
                    client.status()
                return
            except Error:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.02)

    def _deploy_once_more(self) -> None:
        """After the storm a good release is taken as ever; one that is under way may end first."""
        deadline = time.monotonic() + SERVES_WITHIN
        while True:
            code, said = taskctl(self._place, "deploy", self._place.release(GOOD[0]))
            if code == 0:
                return
            if time.monotonic() > deadline:
                self._find(f"the deploy after the storm failed: {said}")
                return
            time.sleep(0.2)

    def _stop(self) -> None:
        """What a stop leaves: exit status 0, no process, no slot."""
        self._manager.terminate()
        try:
            status = self._manager.wait(STOPS_WITHIN)
        except subprocess.TimeoutExpired:
            self._find(f"the daemon did not stop in {STOPS_WITHIN:g} s")
            return
        if status != 0:
            self._find(f"the daemon stopped with exit status {status}")
        for process in _left_after(self._place, 10.0):
            self._find(f"process {process} was left after the stop")
        for path in _left_files(self._place.path("disk", "state", "slots")):
            self._find(f"{path} was left after the stop")

    def _find(self, finding: str) -> None:
        self._place.tell("findings.jsonl", finding=finding)


def _left_after(place: Place, within: float) -> list[str]:
    """What has not ended by itself, in that time."""
    deadline = time.monotonic() + within
    while (left := marked(place.marker)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return [f"{process.pid} ({' '.join(process.words)})" for process in left]


def _left_files(folder: str) -> list[str]:
    """Slots, and whatever else has been there for long: what is only passed on may just have been
    on its way when its receiver was killed, and is swept some time later."""
    paths = [os.path.join(folder, name) for name in os.listdir(folder)]
    old = time.time() - SWEPT_WITHIN
    return [path for path in paths if path.endswith(".slot") or os.stat(path).st_mtime < old]


def _kill_all(place: Place) -> None:
    """End what is left, by force; the manager first, which would start it again."""
    rounds = 0
    for child in _managers(place):
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    while (left := marked(place.marker)) and rounds < 200:
        for process in left:
            send(process, signal.SIGKILL)
        rounds += 1
        time.sleep(0.05)


def _managers(place: Place) -> list[int]:
    """The pid of our service manager, if it lives."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{name}/cmdline", "rb") as file:
            words = file.read().split(b"\0")
            if b"contrib.storm.manager" in words and os.fsencode(place.root) in words:
                found.append(int(name))
    return found


def _keep_disk(place: Place) -> None:
    """What is on the small file system would be gone with it."""
    if place.has_disk:
        shutil.copytree(place.path("disk"), place.path("disk-as-it-was"), dirs_exist_ok=True)
