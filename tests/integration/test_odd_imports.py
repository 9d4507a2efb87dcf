"""An app that puts objects of its own where taskd looks, which raise when they are asked."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support import processes
from support.daemon import Daemon

from taskd.errors import DeployRefused

LIAR = """
import os, sys
from taskd import task

class Liar:
    @property
    def __class__(self):
        raise SystemExit("which class")
    @property
    def closed(self):
        raise SystemExit("open or not")
    def __init__(self, stream):
        self.write = stream.write
        self.flush = stream.flush

class LyingError(Exception):
    @property
    def __class__(self):
        raise SystemExit("which class")
    def __str__(self):
        raise SystemExit("no text")

@task
def prints() -> int:
    print("printed")
    return os.getpid()
"""

STREAMS = LIAR + "sys.stdout, sys.stderr = Liar(sys.stdout), Liar(sys.stderr)\n"


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    made = new_daemon(queues={"default": {"concurrency": 1}})
    made.release("r1", STREAMS)
    made.release("r2", LIAR + "raise LyingError\n")
    made.point("r1")
    return made.start()


def test_streams_that_lie_about_their_class_are_written_to(daemon: Daemon) -> None:
    client = daemon.client()
    for _ in range(3):
        task = client.submit("prints")
        pid = task.result(30)
        assert daemon.task_log(task.id) == "printed\n"
        daemon.through([pid])
        assert processes.is_alive(pid)


def test_an_import_that_raises_what_cannot_be_asked_is_refused_by_its_name(daemon: Daemon) -> None:
    with pytest.raises(DeployRefused, match="it raised LyingError"):
        daemon.reload("r2")
