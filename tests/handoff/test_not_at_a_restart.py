"""A deploy that was refused or half done does not come alive by a start, whatever the symlink says.

What a start uses is ``confirmed``; here daemons die, stop and are started in every way, with the
symlink on the release that must not come.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

import pytest
from support import processes
from support.waiting import eventually
from world import APP, Asking, FaultyDaemon


@pytest.fixture
def daemon(compiled: None) -> Iterator[FaultyDaemon]:
    made = FaultyDaemon(queues={"loops": {"concurrency": 4}})
    made.release("bad", "raise ValueError('bad')")
    made.with_releases(APP, "r1", "r2")
    try:
        yield made.start()
        made.end()
    finally:
        made.clean_up()


def refused(daemon: FaultyDaemon) -> None:
    with Asking(daemon, daemon.path("releases", "bad")) as caller:
        verdict = caller.verdict()
    assert verdict is not None and verdict.what == "refused"


def fails_in(step: str) -> Callable[[FaultyDaemon], None]:
    """The deploy of r2 fails at that step, and is refused."""

    def half(daemon: FaultyDaemon) -> None:
        daemon.fail_at(step, "exception")
        with Asking(daemon, daemon.path("releases", "r2")) as caller:
            verdict = caller.verdict()
        assert verdict is not None and verdict.what == "refused"

    return half


def stands_still_at(step: str) -> Callable[[FaultyDaemon], None]:
    """The deploy of r2 has come to that step, and is under way."""

    def half(daemon: FaultyDaemon) -> None:
        daemon.fail_at(step, "stop")
        with Asking(daemon, daemon.path("releases", "r2")):
            daemon.stopped()

    return half


HALF: dict[str, Callable[[FaultyDaemon], None]] = {
    "refused": refused,
    "failed before the exec": fails_in("exec"),
    "given back": fails_in("confirm"),
    "at its beginning": stands_still_at("prove"),
    "before the exec": stands_still_at("exec"),
    "in the new image": stands_still_at("first stage"),
    "right before it is confirmed": stands_still_at("confirm"),
}


def crash(daemon: FaultyDaemon) -> None:
    daemon.kill()
    daemon.start()


def reboot(daemon: FaultyDaemon) -> None:
    """No process is left; the sockets' directory is empty, as a tmpfs is after a boot."""
    daemon.kill_everything()
    for name in os.listdir(daemon.path("run")):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(daemon.path("run", name))
    daemon.start()


def restart(daemon: FaultyDaemon) -> None:
    state = processes.state_and_parent(daemon.pid)
    if state is not None and state[0] == "T":
        crash(daemon)  # what is stopped cannot be asked; a service manager kills it in the end
    else:
        daemon.restart()


@pytest.mark.parametrize("then", [restart, crash, reboot], ids=lambda f: f.__name__)
@pytest.mark.parametrize("how", HALF)
def test_a_deploy_does_not_come_alive(
    daemon: FaultyDaemon, how: str, then: Callable[[FaultyDaemon], None]
) -> None:
    daemon.point("bad" if how == "refused" else "r2")
    HALF[how](daemon)
    then(daemon)
    for start in (lambda: None, lambda: crash(daemon)):
        start()
        with daemon.raw() as raw:
            status = raw.ask("status")
            assert status["revision"] == "r1"
            assert status["confirmed"] == daemon.path("releases", "r1")
    assert not os.path.exists(daemon.path("state", "handoff"))
    assert daemon.reload("r2")["revision"] == "r2"
    eventually(lambda: set(daemon.zygotes()) == {"r2"}, "r1 drains")


def test_one_that_was_confirmed_does(daemon: FaultyDaemon) -> None:
    """The other way round: the symlink on the old one, and a crash in the last steps."""
    daemon.point("r1")
    daemon.fail_at("announce", "kill")
    with Asking(daemon, daemon.path("releases", "r2")) as caller:
        verdict = caller.verdict()
    assert verdict is not None and verdict.what == "crashed"
    assert daemon.process is not None
    daemon.process.wait(30)
    reboot(daemon)
    with daemon.raw() as raw:
        assert raw.ask("status")["revision"] == "r2"
