"""Few descriptors and many workers: clients are answered all the same."""

from __future__ import annotations

from collections.abc import Callable

from support.daemon import Daemon
from support.waiting import eventually

APP = """
from taskd import task
from side import gate, mark

@task
def waits() -> None:
    mark("waits")
    gate("go")
"""


class Limited(Daemon):
    """With few descriptors from its start on."""

    most = 30

    def command(self, *arguments: str) -> list[str]:
        return ["prlimit", f"--nofile={self.most}:{self.most}", *super().command(*arguments)]


def test_workers_leave_descriptors_to_clients(new_daemon: Callable[..., Daemon]) -> None:
    daemon = new_daemon(kind=Limited)
    daemon.with_releases(APP, "r1").start()
    with daemon.client() as first:
        for _ in range(8):
            first.submit("waits")
        eventually(lambda: first.status()["problems"], "it says that it is short")
        (told,) = first.status()["problems"]
        assert told.startswith("no more workers are started: of 30 descriptors")
        eventually(daemon.effects, "some run")
        for _ in range(3):  # and others come in beside it
            with daemon.client(timeout=5) as another:
                assert another.status()["pid"] == daemon.pid
                assert another.task(8).reason == f"waits: {told}"
        daemon.open_gate("go")
        eventually(lambda: first.status()["states"]["succeeded"] == 8, "all had their turn")
