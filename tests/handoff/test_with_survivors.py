"""Deploys while zygotes and workers of a master that died are there: they are not our children.

The test is their parent, as a service manager is, and reaps them.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections.abc import Iterator

import pytest
from support import processes
from world import APP, Asking, FaultyDaemon, go_on

from taskd.upgrade import steps

PR_SET_CHILD_SUBREAPER = 36


def be_subreaper(wanted: bool) -> None:
    assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, int(wanted), 0, 0, 0) == 0


@pytest.fixture
def parent() -> Iterator[None]:
    """What a dead master leaves behind becomes ours, and is ours to reap."""
    be_subreaper(True)
    yield
    be_subreaper(False)
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


@pytest.fixture
def daemon(compiled: None, parent: None) -> Iterator[FaultyDaemon]:
    made = FaultyDaemon(queues={"loops": {"concurrency": 4}})
    made.with_releases(APP, "r1", "r2")
    try:
        yield made.start()
        made.end()
    finally:
        made.clean_up()


@pytest.mark.parametrize("step", steps.NEW)
def test_an_adopted_zygote_that_dies_in_the_exec_is_no_failure(
    daemon: FaultyDaemon, step: str
) -> None:
    """Nobody keeps it as a zombie for us: it is gone without a trace when the new image looks."""
    task = daemon.client().submit("stays", {"end": "end"})
    daemon.reached(task.id, "0")
    zygote = daemon.zygotes()["r1"]
    daemon.kill()
    daemon.start()
    assert processes.is_alive(zygote), "adopted, though perhaps too late to serve on"
    daemon.fail_at(step, "stop")
    with Asking(daemon, daemon.path("releases", "r2")) as caller:
        stopped = daemon.stopped()
        os.kill(zygote, signal.SIGKILL)
        os.waitpid(zygote, 0)  # and with that it is gone
        go_on(stopped)
        verdict = caller.verdict()
    assert verdict is not None and verdict.what == "served", verdict and verdict.why
    daemon.open_gate("end")
    last = task.result(30)
    assert daemon.items(task.id) == [str(n) for n in range(last + 1)]
