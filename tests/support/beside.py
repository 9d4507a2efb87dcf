"""What must hold whatever a task does to itself: the task beside it ends right, the daemon stays.

``APP`` is the beginning of an app's source; the poisonous tasks come after it.
"""

from __future__ import annotations

from support import processes
from support.daemon import Daemon
from support.waiting import eventually

APP = '''
import ctypes, os, resource, signal, sys, threading, time
from taskd import task
from side import attempt, gate, mark, until_asked

@task(queue="beside")
def neighbour(ctx) -> list:
    seen = []
    for n in ctx.each("items", range(3)):
        mark(n)
        if n == 1:
            gate("neighbour")
        seen.append(n)
    return seen

@task(queue="beside")
def plain() -> int:
    return os.getpid()

def stray():
    """This process is told to the test, and must be gone at its end."""
    mark(f"stray-{os.getpid()}")
'''


class Beside:
    """One neighbour that is in the middle of its work, from now until ``all_is_well``."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._pid = daemon.pid
        self._client = daemon.client()
        self._task = self._client.submit("neighbour")
        daemon.reached(self._task.id, "1")

    def has_another_master(self) -> None:
        """The test has started the daemon again."""
        self._pid = self._daemon.pid

    def all_is_well(self) -> None:
        """The neighbour ends in its first attempt, others run, and no process is left over."""
        self._daemon.open_gate("neighbour")
        assert self._task.result(30) == [0, 1, 2]
        assert self._task.status().attempt == 1
        assert self._client.submit("plain").result(30) > 0
        assert self._client.status()["pid"] == self._pid
        eventually(lambda: not self.left_over(), "every process of a dead attempt is gone")

    def left_over(self) -> list[int]:
        """Processes that no living attempt has: told strays, and whatever is no worker."""
        daemon = self._daemon
        told = {e.item.removeprefix("stray-") for e in daemon.effects() if "stray-" in e.item}
        keepers = {daemon.pid, *daemon.zygotes().values()}
        found = [(pid, processes.state_and_parent(pid)) for pid in daemon.processes()]
        return [pid for pid, s in found if s and (str(pid) in told or not {pid, s[1]} & keepers)]
