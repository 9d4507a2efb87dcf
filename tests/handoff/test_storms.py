"""Signals at every moment of a reload, many callers at once, and callers that die."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator

import pytest
from support.waiting import eventually
from test_bad_releases import taskctl
from world import APP, Asking, FaultyDaemon, World, go_on

from taskd.errors import DeployRefused
from taskd.upgrade import steps

ROUNDS = 6


class Storm(threading.Thread):
    """Sends the daemon these signals every millisecond until it is told to end."""

    def __init__(self, pid: int, *numbers: int) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self._numbers = numbers
        self._over = threading.Event()
        self.sent = 0

    def run(self) -> None:
        while not self._over.wait(0.001):
            for number in self._numbers:
                with contextlib.suppress(ProcessLookupError):  # it has ended
                    os.kill(self._pid, number)
                self.sent += 1

    def end(self) -> None:
        self._over.set()
        self.join(30)


def deploys(daemon: FaultyDaemon) -> int:
    return len(re.findall(r" deployed revision=", daemon.log()))


def until_served(world: World, release: str) -> None:
    eventually(lambda: served(world, release), "it is deployed")


def served(world: World, release: str) -> bool:
    """False: not now, since a deploy that a SIGHUP began is under way."""
    with Asking(world.daemon, world.path_of(release)) as caller:
        verdict = caller.verdict()
    assert verdict is not None
    assert verdict.what == "served" or "is under way; try again" in verdict.why, verdict.why
    return verdict.what == "served"


def idle(daemon: FaultyDaemon) -> bool:
    """No deploy is under way: as many have ended as began."""
    log = daemon.log()
    return log.count(" deploy release=") == deploys(daemon) + log.count("error: deploy refused")


def test_storms_of_signals_through_reloads_kill_nobody(world: World) -> None:
    """SIGHUP is a wish of its own: some more deploys of what the symlink names follow."""
    daemon, work = world.daemon, world.begin()
    for number in range(ROUNDS):
        release = world.release()
        daemon.point(release)
        numbers = (signal.SIGCHLD, signal.SIGHUP) if number % 2 else (signal.SIGCHLD,)
        storm = Storm(daemon.pid, *numbers)
        storm.start()
        until_served(world, release)
        storm.end()
        for _ in range(2):  # the first may join a deploy after which one more is due
            until_served(world, release)
        world.serving = release
        assert world.status()["revision"] == release
    work.check()
    world.check_quiet()


@pytest.mark.parametrize("step", steps.BATON)
def test_a_sighup_at_any_step_leads_to_one_more_deploy(world: World, step: str) -> None:
    daemon, before = world.daemon, deploys(world.daemon)
    wished, asked = world.release(), world.release()
    daemon.point(wished)
    daemon.fail_at(step, "stop")
    with Asking(daemon, world.path_of(asked)) as caller:
        stopped = daemon.stopped()
        for number in (signal.SIGCHLD, signal.SIGHUP, signal.SIGCHLD):
            os.kill(stopped, number)
        go_on(stopped)
        verdict = caller.verdict()
        assert verdict is not None and verdict.what == "served"
    eventually(lambda: world.status()["revision"] == wished, "what the symlink names serves")
    eventually(lambda: idle(daemon), "and that was the last")
    assert deploys(daemon) == before + 2
    world.serving = wished
    world.check_quiet()


@pytest.fixture
def daemon(compiled: None) -> Iterator[FaultyDaemon]:
    made = FaultyDaemon(queues={"loops": {"concurrency": 4}})
    made.with_releases(APP, "r1", "r2")
    try:
        yield made.start()
        made.end()
    finally:
        made.clean_up()


@pytest.mark.parametrize("step", steps.BATON)
def test_a_sigterm_at_any_step_stops_the_daemon_properly(daemon: FaultyDaemon, step: str) -> None:
    daemon.fail_at(step, "stop")
    with daemon.raw() as raw:
        task = raw.submit("stays", end="end")
        daemon.reached(task, "0")
    with Asking(daemon, daemon.path("releases", "r2")):
        stopped = daemon.stopped()
        os.kill(stopped, signal.SIGTERM)
        go_on(stopped)
        assert daemon.process is not None
        assert daemon.process.wait(30) == 0
    daemon.start()
    with daemon.raw() as raw:
        serves = raw.ask("status")["revision"]
    assert serves == ("r2" if step in steps.AFTER else "r1") or step in (steps.OLD + steps.NEW)
    daemon.open_gate("end")
    last = daemon.client().handle(task).result(30)
    assert daemon.items(task) == [str(n) for n in range(last + 1)]


def test_signals_that_come_while_it_ends_do_not_change_its_exit_status(
    new_daemon: Callable[..., FaultyDaemon],
) -> None:
    daemon = new_daemon(kind=FaultyDaemon)
    daemon.point(os.path.basename(daemon.release("r1", APP)))
    for _ in range(4):
        daemon.start()
        storm = Storm(daemon.pid, signal.SIGHUP)
        daemon.kill(signal.SIGTERM)
        storm.start()
        assert daemon.process is not None
        assert daemon.process.wait(30) == 0
        storm.end()


# ── callers ──────────────────────────────────────────────────────────────────────────────────


def test_five_reloads_of_one_release_at_once_all_succeed(world: World) -> None:
    daemon, before = world.daemon, deploys(world.daemon)
    world.serving = world.release()
    daemon.point(world.serving)
    callers = [taskctl(daemon, "reload") for _ in range(5)]
    told = [caller.communicate(timeout=60) for caller in callers]
    assert [caller.returncode for caller in callers] == [0] * 5, told
    assert all(out.startswith(f"{world.serving} serves") for out, _ in told), told
    assert 1 <= deploys(daemon) - before <= 5
    world.check_quiet()


def test_five_reloads_of_five_releases_at_once_all_get_a_true_answer(world: World) -> None:
    daemon, before = world.daemon, deploys(world.daemon)
    releases = [world.release() for _ in range(5)]
    callers = [Asking(daemon, world.path_of(release)) for release in releases]
    verdicts = [caller.verdict() for caller in callers]
    for caller in callers:
        caller.raw.close()
    served = [r for r, v in zip(releases, verdicts, strict=True) if v and v.what == "served"]
    refused = [v.why for v in verdicts if v and v.what == "refused"]
    assert len(served) + len(refused) == 5
    assert len(served) == deploys(daemon) - before >= 1
    assert all(re.fullmatch(r"a deploy of .* is under way; .*", why) for why in refused)
    world.serving = world.status()["revision"]
    assert world.serving in served
    world.check_quiet()


@pytest.mark.parametrize("step", ["prove", "plan", "try", "hook", "quiesce", "empty"])
def test_a_caller_that_is_killed_aborts_the_deploy(world: World, step: str) -> None:
    daemon, before, release = world.daemon, world.serving, world.release()
    daemon.point(release)
    daemon.fail_at(step, "stop")
    caller = taskctl(daemon, "reload")
    stopped = daemon.stopped()
    caller.kill()
    caller.communicate(timeout=30)
    go_on(stopped)
    eventually(lambda: "who asked for it went away" in world.status()["note"], "it is given up")
    assert world.status()["revision"] == before
    with pytest.raises(DeployRefused, match="there is no release directory"):
        world.kept.ask("reload", release=world.path_of("nowhere"))  # another note
    world.deploy(world.release())
    world.check_quiet()
