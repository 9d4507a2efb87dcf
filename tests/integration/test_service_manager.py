"""What the service manager is told, and stops and restarts that come with a reason."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator

import pytest
from support import processes
from support.daemon import Daemon, repeated
from support.managed import Managed
from support.mounts import MIB, Mounted
from support.waiting import eventually

import taskd
from taskd.errors import DeployRefused

APP = """
from taskd import task
from side import attempt, gate, mark, until_asked

@task
def stays(gate_name: str = "go") -> int:
    "Comes to no safe point before the gate is open."
    mark("begin")
    gate(gate_name)
    mark("end")
    return attempt()

@task
def leaves(ctx, n: int = 6) -> int:
    for i in ctx.each("items", range(n)):
        mark(i)
        if i == 2 and attempt() == 1:
            until_asked(ctx)
    return attempt()
"""

STATUS_WITHIN = 0.5  # [daemon] stop_timeout of the tests in which somebody does not leave
TIME_TO_LEAVE = 2.5  # and of the one in which somebody else does


class MountedAndManaged(Mounted, Managed):
    pass


class Unheard(Managed):
    """Its service manager hangs, with all unread that the socket takes, until ``hear``."""

    def spawn(self, *arguments: str) -> subprocess.Popen[bytes]:
        sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        with sender, contextlib.suppress(BlockingIOError):
            while True:
                sender.sendto(b"unread", self.path("notify"))
        return super().spawn(*arguments)

    def _answers(self) -> bool:
        return Daemon._answers(self)


@pytest.fixture
def managed(new_daemon: Callable[..., Daemon]) -> Callable[..., Managed]:
    def make(kind: type[Managed] = Managed, **more: object) -> Managed:
        daemon = new_daemon(kind=kind, **more)
        assert isinstance(daemon, Managed)
        daemon.release("broken", "raise RuntimeError('no good')")
        return daemon.with_releases(APP, "r1", "r2")

    return make


@pytest.fixture
def hasty(managed: Callable[..., Managed]) -> Iterator[Managed]:
    """Started, with a stop_timeout that nobody wants to wait for."""
    daemon = managed(daemon={"stop_timeout": STATUS_WITHIN})
    daemon.start()
    yield daemon
    daemon.open_gate("go")


def reasons(client: taskd.Client, task: int) -> str:
    """All that its events say."""
    return "; ".join(event["reason"] or "" for event in client.handle(task).follow())


# ── STATUS ───────────────────────────────────────────────────────────────────────────────────


def test_a_service_manager_that_hangs_keeps_nobody_from_being_served_and_hears_of_it_later(
    managed: Callable[..., Managed],
) -> None:
    daemon = managed(kind=Unheard)
    daemon.open_gate("go")
    daemon.start()
    with daemon.client() as client:
        assert client.submit("stays").result(30) == 1
    eventually(lambda: "READY=1" in daemon.hear(), "it hears what it was to be told")


def test_the_status_says_what_runs_where_and_how_the_last_deploy_went(
    managed: Callable[..., Managed],
) -> None:
    daemon = managed()
    daemon.start()
    eventually(lambda: "READY=1" in daemon.hear(), "it is ready")
    assert daemon.status() == "r1; 0 running"
    with daemon.client() as client:
        old = [client.submit("stays") for _ in range(2)]
        eventually(lambda: daemon.status() == "r1; 2 running", "both run")
        daemon.reload("r2")
        new = client.submit("stays", {"gate_name": "other"})
        eventually(lambda: new.status().state == "running", "it runs, too")
        with pytest.raises(DeployRefused):
            daemon.reload("broken")
        said = "r2; 3 running, 2 on r1; last deploy refused: "
        assert daemon.status().startswith(said), "told before the caller is"
        assert "no good" in daemon.status()
        assert not any(line.startswith("RELOADING") for line in daemon.hear())
        daemon.open_gate("go")
        assert [task.result(30) for task in old] == [1, 1]
        eventually(lambda: daemon.status().startswith("r2; 1 running; last"), "the old are done")
        daemon.open_gate("other")
        assert new.result(30) == 1


def test_what_does_not_go_on_is_in_the_status_until_it_does(
    managed: Callable[..., Managed],
) -> None:
    daemon = managed(MountedAndManaged)
    assert isinstance(daemon, MountedAndManaged)
    daemon.small("state", 4 * MIB)
    daemon.start()
    with daemon.client() as client:
        daemon.fill("state")
        with pytest.raises(taskd.Refused):
            client.submit("leaves")
        trouble = "nothing new is accepted"  # shown for seconds only: no status of then is missed
        eventually(lambda: any(trouble in line for line in daemon.hear()), "the trouble is told")
        daemon.make_room("state")
        eventually(lambda: daemon.status() == "r1; 0 running", "and that it is over")


# ── WATCHDOG ─────────────────────────────────────────────────────────────────────────────────


def pings(daemon: Managed) -> int:
    return daemon.hear().count("WATCHDOG=1")


def test_the_watchdog_is_told_again_and_again_also_by_the_next_image(
    managed: Callable[..., Managed],
) -> None:
    daemon = managed(watchdog=0.6)
    daemon.start()
    eventually(lambda: pings(daemon) > 2, "some pings")
    daemon.reload("r2")
    daemon.forget()
    eventually(lambda: pings(daemon) > 2, "some pings of the new image")
    daemon.kill(signal.SIGSTOP)
    eventually(lambda: processes.state_and_parent(daemon.pid) == ("T", os.getpid()), "it stands")
    daemon.forget()
    with pytest.raises(AssertionError):
        eventually(lambda: pings(daemon) > 0, "a ping of a stopped daemon", 2)
    daemon.kill(signal.SIGCONT)
    eventually(lambda: pings(daemon) > 0, "it goes on")


def test_a_writer_that_hangs_is_not_called_progress(managed: Callable[..., Managed]) -> None:
    daemon = managed(MountedAndManaged, watchdog=0.6)
    assert isinstance(daemon, MountedAndManaged)
    daemon.ext4("state", 32 * MIB)
    daemon.start()
    with daemon.client() as client, daemon.raw() as writing, daemon.raw() as looking:
        assert client.submit("stays", {"gate_name": "."}).result(30) == 1
        with daemon.frozen("state"):
            task = {"submission": bytes(16), "name": "leaves", "args": b"\xa0"}
            asked = writing.start("submit", tasks=[task])
            assert looking.ask("status")["states"]["succeeded"] == 1, "the loop turns"
            eventually(lambda: looking.ask("status") and silent(daemon), "no ping any more")
            assert looking.ask("status")["states"]["succeeded"] == 1, "and turns on"
        writing.reply_to(asked)
        daemon.forget()
        eventually(lambda: pings(daemon) > 2, "pings again")


def silent(daemon: Managed) -> bool:
    """Whether a second passes in which several pings were due and none comes."""
    daemon.forget()
    try:
        eventually(lambda: pings(daemon) > 0, "a ping", 1)
    except AssertionError:
        return True
    return False


# ── stops ────────────────────────────────────────────────────────────────────────────────────


def test_more_time_is_asked_for_while_tasks_leave_and_the_status_says_how_many(
    managed: Callable[..., Managed],
) -> None:
    daemon = managed(daemon={"stop_timeout": 60.0})
    daemon.start()
    with daemon.client() as client:
        slow = client.submit("stays").id
        quick = client.submit("leaves").id
        daemon.reached(slow, "begin")
        daemon.reached(quick, "2")
    daemon.forget()
    daemon.kill(signal.SIGTERM)
    said = "stopping: 1 of 2 tasks have not left yet"
    eventually(lambda: daemon.status() == said, "one has left")
    assert "STOPPING=1" in daemon.told
    eventually(lambda: daemon.hear().count("EXTEND_TIMEOUT_USEC=20000000") > 1, "more than once")
    daemon.open_gate("go")
    assert daemon.process is not None and daemon.process.wait(30) == 0
    daemon.start()
    with daemon.client() as client:
        assert client.handle(slow).result(30) == 1
        assert client.handle(quick).result(30) == 2
    assert repeated(daemon.effects()) == {}


def test_a_stop_for_good_ends_who_does_not_leave_and_a_later_start_goes_on(
    managed: Callable[..., Managed],
) -> None:
    daemon = managed(daemon={"stop_timeout": TIME_TO_LEAVE})
    daemon.start()
    with daemon.client() as client:
        slow, quick = client.submit("stays").id, client.submit("leaves").id
        begun = daemon.reached(slow, "begin")
        daemon.reached(quick, "2")
        ended = {"asked": 2, "ended": [slow], "kept": [], "counts": {"ended": 1, "kept": 0}}
        assert client.shutdown(keep=False) == ended
    assert daemon.process is not None and daemon.process.wait(30) == 0
    eventually(lambda: begun.pid not in daemon.processes(), "its process is gone")
    daemon.open_gate("go")
    daemon.start()
    with daemon.client() as client:
        assert client.handle(slow).result(30) == 2
        said = reasons(client, slow)
        assert f"interrupted: the daemon stopped; did not leave in {TIME_TO_LEAVE:.0f} s" in said
        assert client.handle(quick).result(30) == 2
    assert daemon.items(quick) == ["0", "1", "2", "3", "4", "5"]


def test_in_a_restart_who_does_not_leave_goes_on_even_if_a_signal_comes_on_top(
    hasty: Managed,
) -> None:
    with hasty.client() as client, hasty.raw() as raw:
        slow = client.submit("stays").id
        begun = hasty.reached(slow, "begin")
        asked = raw.start("shutdown", keep=True)
        eventually(lambda: "STOPPING=1" in hasty.hear(), "it has begun")
        hasty.kill(signal.SIGTERM)  # what follows ExecStop=
        kept = {"asked": 1, "ended": [], "kept": [slow], "counts": {"ended": 0, "kept": 1}}
        assert raw.reply_to(asked) == kept
    assert hasty.process is not None and hasty.process.wait(30) == 0
    hasty.start()
    hasty.open_gate("go")
    with hasty.client() as client:
        assert client.handle(slow).result(30) == 1
    assert [effect.pid for effect in hasty.effects(slow)] == [begun.pid, begun.pid]


def test_a_sweep_after_the_daemon_is_told_from_a_crash(hasty: Managed) -> None:
    with hasty.client() as client:
        slow = client.submit("stays").id
        hasty.reached(slow, "begin")
    hasty.kill_everything()
    with open(hasty.path("run", "swept"), "x", encoding="ascii"):
        pass  # as the unit's stop-post does
    hasty.open_gate("go")
    hasty.start()
    with hasty.client() as client:
        assert client.handle(slow).result(30) == 2
        said = reasons(client, slow)
    assert "interrupted: the daemon was stopped before the task had left" in said
    assert "crashed" not in said
    hasty.kill()
    hasty.start()
    with hasty.client() as client:  # it was for that one start
        again = client.submit("stays", {"gate_name": "again"}).id
        hasty.reached(again, "begin")
    hasty.kill_everything()
    hasty.open_gate("again")
    hasty.start()
    with hasty.client() as client:
        assert "crashed" in reasons(client, again)


def test_nobody_but_an_operator_stops_the_daemon(hasty: Managed) -> None:
    with taskd.Client(hasty.submit_socket) as client:
        for plan in (True, False):
            with pytest.raises(taskd.Refused, match="only an operator"):
                client.shutdown(plan=plan)
    with hasty.client() as client:
        assert client.status()["pid"] == hasty.pid


def test_what_a_stop_would_interrupt_is_shown_and_left_alone(hasty: Managed) -> None:
    with hasty.client() as client:
        nothing = {"tasks": [], "running": 0, "limit": STATUS_WITHIN}
        assert client.shutdown(plan=True) == nothing
        slow, quick = client.submit("stays").id, client.submit("leaves").id
        hasty.reached(slow, "begin")
        hasty.reached(quick, "2")
        found = client.shutdown(plan=True)
        shown = {task["task"]: task for task in found["tasks"]}
        assert [(t["name"], t["revision"]) for t in shown.values()] == [
            ("stays", "r1"),
            ("leaves", "r1"),
        ]
        assert shown[slow]["saved"] is None
        late = 0.1  # a file's time is that of the kernel's last tick, not of now
        assert shown[quick]["saved"] >= shown[quick]["started"] - late
        assert client.task(quick).attempt == 1 and client.task(quick).state == "running"
