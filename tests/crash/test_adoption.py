"""The next master takes over what the one before left alive, as if nothing had happened.

Longer than 400 lines because one app and one fixture serve every way in which a
master can be missing.
"""

from __future__ import annotations

import contextlib
import glob
import os
import signal
import sqlite3
from collections import Counter
from collections.abc import Callable

import pytest
from support import processes
from support.daemon import Daemon, repeated
from support.managed import Managed
from support.waiting import eventually

from taskd.client.blocking import TaskHandle
from taskd.posix import sockets
from taskd.protocol import frames
from taskd.revision import record
from taskd.slot import layout

APP = """
import ctypes, os, resource, signal, time
from taskd import task
from side import attempt, gate, is_open, mark, until_asked

@task
def count(ctx, n: int) -> list:
    for i in ctx.each("items", range(n)):
        mark(i)
        if i == 1 and attempt() == 1:
            gate("go")
        ctx.state["seen"] = [*ctx.state.get("seen", []), i]
    return ctx.state["seen"]

@task
def ends_badly(how: str) -> int:
    mark("begin")
    if attempt() == 1:
        gate("go")
        if how == "segfault":
            ctypes.string_at(0)
        os._exit(3)
    return 7

@task
def leaves_a_child(ctx) -> str:
    mark("begin")
    if attempt() == 1:
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                for fd in range(3, 100):
                    try:
                        os.close(fd)
                    except OSError:
                        pass
                mark("leftover")
                time.sleep(3600)
            os._exit(0)
        time.sleep(3600)
    return "done"

@task
def hides_a_child(ctx) -> str:
    mark("begin")
    if attempt() == 1:
        if os.fork() == 0:
            resource.setrlimit(10, (5, 5))  # file locks: `ulimit -x`
            mark("leftover")
            time.sleep(3600)
        time.sleep(3600)
    return "done"

@task
def politely(ctx, n: int) -> int:
    for i in ctx.each("items", range(n)):
        mark(i)
        if i == 0 and attempt() == 1:
            gate("go")
        if i == 1 and attempt() == 1:
            until_asked(ctx)
    return n

@task(on_deploy="checkpoint")
def moves(ctx, n: int) -> int:
    for i in ctx.each("items", range(n)):
        mark(i)
        if i == 1 and attempt() == 1:
            until_asked(ctx)
    return n

@task(on_deploy="finish")
def stubborn(n: int) -> int:
    mark("begin")
    gate("stay")
    return n
"""

ONLY_OLD = """
from taskd import task
from side import attempt, gate, mark

@task
def of_old(ctx) -> str:
    for i in ctx.each("items", range(3)):
        mark(i)
        if i == 1 and attempt() == 1:
            gate("go")
    return "old"
"""


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    made = new_daemon(queues={"default": {"concurrency": 20}})
    made.constants["taskd.master.start.MEET_WITHIN"] = 20.0  # what serves on is not to be replaced
    return made.with_releases(APP, "r1", "r2").start()


def counting(daemon: Daemon, count: int = 1) -> list[TaskHandle]:
    """That many tasks that hang in their second item."""
    tasks = [daemon.client().submit("count", {"n": 4}) for _ in range(count)]
    for task in tasks:
        daemon.reached(task.id, "1")
    return tasks


def let_r2_serve(daemon: Daemon) -> None:
    """Although it does not know a task that runs."""
    daemon.point("r2")
    with daemon.client() as client:
        client.reload(allow_held=True)


def reasons(task: TaskHandle) -> list[str]:
    return [str(event["reason"]) for event in task.follow() if event["reason"]]


@pytest.mark.parametrize(
    ("how", "told"), [("segfault", "killed by SIGSEGV"), ("exit", "exit status 3")]
)
@pytest.mark.parametrize("when", ["while there is no master", "after the adoption"])
def test_the_zygote_tells_the_next_master_how_its_workers_died(
    daemon: Daemon, how: str, told: str, when: str
) -> None:
    task = daemon.client().submit("ends_badly", {"how": how})
    pid = daemon.reached(task.id, "begin").pid
    daemon.kill()
    if when == "after the adoption":
        daemon.start()
    daemon.open_gate("go")
    eventually(lambda: not processes.is_alive(pid), "the worker is dead")
    if when != "after the adoption":
        daemon.start()
    assert task.result(30) == 7
    assert any(told in reason for reason in reasons(task)), reasons(task)


def test_a_worker_whose_zygote_died_as_well_is_adopted_and_its_death_is_said_to_be_unseen(
    daemon: Daemon,
) -> None:
    first, second = counting(daemon, 2)
    daemon.kill()
    os.kill(daemon.zygotes()["r1"], signal.SIGKILL)
    daemon.start()
    eventually(lambda: daemon.log().count("adopted") == 2, "both are adopted")
    os.kill(daemon.reached(first.id, "1").pid, signal.SIGKILL)
    assert first.result(30) == [0, 1, 2, 3]
    assert any("how is not known" in reason for reason in reasons(first))
    daemon.open_gate("go")
    assert second.result(30) == [0, 1, 2, 3]
    assert daemon.items(second.id) == ["0", "1", "2", "3"]


CHILDREN = ["leaves_a_child", "hides_a_child"]
"""The first's is of a session of its own, forked twice, orphan of everything; the second's has
taken off the mark that its worker wore, and stays in its session."""


@pytest.mark.parametrize("name", CHILDREN)
@pytest.mark.parametrize("zygote", ["lives", "dies before", "dies after"])
def test_what_a_killed_task_left_is_gone_before_its_next_attempt_begins(
    daemon: Daemon, zygote: str, name: str
) -> None:
    task = daemon.client().submit(name, {})
    leftover = daemon.reached(task.id, "leftover").pid
    worker = daemon.reached(task.id, "begin").pid
    keeper = daemon.zygotes()["r1"]
    daemon.kill()
    if zygote == "dies before":
        os.kill(keeper, signal.SIGKILL)
        eventually(lambda: not processes.is_alive(keeper), "the zygote is dead")
    os.kill(worker, signal.SIGKILL)
    if zygote == "dies after":
        os.kill(keeper, signal.SIGSTOP)  # it has no time to sweep
        os.kill(keeper, signal.SIGKILL)
    daemon.start()
    assert task.result(30) == "done"
    assert not processes.is_alive(leftover)


@pytest.mark.parametrize("name", CHILDREN)
def test_what_a_killed_orphan_left_is_gone_before_its_next_attempt_begins(
    daemon: Daemon, name: str
) -> None:
    """Nobody is its parent, and nobody its leftover's; only what both wear, or their session,
    tells them."""
    task = daemon.client().submit(name, {})
    leftover = daemon.reached(task.id, "leftover").pid
    worker = daemon.reached(task.id, "begin").pid
    daemon.kill()
    os.kill(daemon.zygotes()["r1"], signal.SIGKILL)
    daemon.start()
    eventually(lambda: "adopted" in daemon.log(), "it is adopted without its zygote")
    os.kill(worker, signal.SIGKILL)
    assert task.result(30) == "done"
    assert not processes.is_alive(leftover)


def test_a_death_that_was_noted_and_not_yet_recorded_is_found_by_the_next_master(
    daemon: Daemon,
) -> None:
    """The zygote has forgotten it, and the store does not know of it."""
    (task,) = counting(daemon)
    with contextlib.closing(sqlite3.connect(daemon.path("state", "store.db"))) as other:
        other.execute("begin immediate")  # nothing can be committed meanwhile
        os.kill(daemon.reached(task.id, "1").pid, signal.SIGKILL)
        eventually(lambda: "worker gone" in daemon.log(), "the master has heard")
        daemon.client().status()  # which it answers once it has noted that
        daemon.kill()
    daemon.start()
    assert task.result(30) == [0, 1, 2, 3]
    assert Counter(daemon.items(task.id)) == {"0": 1, "1": 2, "2": 1, "3": 1}


def test_an_orphan_leaves_at_a_safe_point_when_no_master_comes(
    new_daemon: Callable[..., Daemon],
) -> None:
    daemon = new_daemon(daemon={"orphan_grace": "1s"})
    daemon.with_releases(APP, "r1").start()
    daemon.open_gate("go")
    task = daemon.client().submit("politely", {"n": 4})
    pid = daemon.reached(task.id, "1").pid
    daemon.kill()
    eventually(lambda: not processes.is_alive(pid), "it has left")
    assert daemon.items(task.id) == ["0", "1"]
    daemon.start()
    assert task.result(30) == 4
    assert repeated(daemon.effects()) == {}
    assert any("no master for 1 s" in reason for reason in reasons(task))


def test_a_cancel_that_was_acknowledged_is_honoured_by_the_next_master(daemon: Daemon) -> None:
    """Its worker was away from the first master's death to the third one's start."""
    daemon.open_gate("go")
    task = daemon.client().submit("politely", {"n": 4})
    pid = daemon.reached(task.id, "1").pid
    os.kill(pid, signal.SIGSTOP)
    daemon.kill()
    daemon.start()
    task.cancel()
    daemon.kill()
    daemon.start()
    os.kill(pid, signal.SIGCONT)
    assert task.wait(30).state == "cancelled"
    assert daemon.items(task.id) == ["0", "1"]


def test_nobody_else_passes_as_a_worker_that_is_looked_for(daemon: Daemon) -> None:
    """With its id, its pid and its task from the slot, but from another process."""
    daemon.open_gate("go")
    task = daemon.client().submit("politely", {"n": 4})
    pid = daemon.reached(task.id, "1").pid
    os.kill(pid, signal.SIGSTOP)
    daemon.kill()
    daemon.start()
    slot = daemon.slot(pid)
    with open(slot, "rb") as file:
        header = layout.decode_header(file.read(layout.BLOCK))
    said = {"type": "hello", "role": "worker", "version": 2, "id": header.worker}
    said |= {"slot": os.path.basename(slot)}
    said |= {"pid": pid, "start": header.start, "busy": [task.id, 1]}
    with sockets.connect(daemon.path("run", "worker.sock"), timeout=20) as impostor:
        impostor.sendall(frames.encode(said))
        ended = {"type": "ended", "task": task.id, "attempt": 1, "offset": 4096}
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it is turned away
            impostor.sendall(frames.encode(ended))
            assert impostor.recv(1) == b"", "it is turned away"
    os.kill(pid, signal.SIGCONT)
    eventually(lambda: "adopted" in daemon.log(), "the real one is not")
    task.cancel()
    assert task.wait(30).state == "cancelled"


def test_restarts_under_a_service_manager_keep_who_does_not_leave_in_time(
    new_daemon: Callable[..., Daemon],
) -> None:
    daemon = new_daemon(kind=Managed, daemon={"stop_timeout": "300ms"})
    daemon.with_releases(APP, "r1").start()
    stays = daemon.client().submit("stubborn", {"n": 5})
    leaves = daemon.client().submit("politely", {"n": 4})
    pid = daemon.reached(stays.id, "begin").pid
    daemon.open_gate("go")
    daemon.reached(leaves.id, "1")
    assert daemon.stop() == 0
    assert processes.is_alive(pid)
    daemon.start()
    assert stays.status().state == "running"
    daemon.open_gate("stay")
    assert stays.result(30) == 5
    assert stays.status().attempt == 1
    assert leaves.result(30) == 4
    assert repeated(daemon.effects()) == {}


def test_an_old_revision_serves_its_tasks_on_after_a_crash(daemon: Daemon) -> None:
    """Its zygote is there to fork for it, and its workers' true statuses come through."""
    daemon.release("old", ONLY_OLD)
    daemon.reload("old")
    task = daemon.client().submit("of_old", {})
    pid = daemon.reached(task.id, "1").pid
    let_r2_serve(daemon)
    zygote = daemon.zygotes()["old"]
    daemon.kill()
    daemon.start()
    os.kill(pid, signal.SIGKILL)
    assert task.result(30) == "old"
    assert {effect.revision for effect in daemon.effects(task.id)} == {"old"}
    eventually(lambda: not processes.is_alive(zygote), "then the old revision goes")
    eventually(lambda: len(os.listdir(daemon.path("state", "zygotes"))) == 1, "with its record")


def test_an_old_revision_that_something_waits_for_outlives_the_death_of_everything(
    daemon: Daemon,
) -> None:
    daemon.release("old", ONLY_OLD)
    daemon.reload("old")
    task = daemon.client().submit("of_old", {})
    daemon.reached(task.id, "1")
    let_r2_serve(daemon)
    daemon.kill_everything()
    daemon.start()
    assert task.result(30) == "old"
    assert Counter(daemon.items(task.id)) == {"0": 1, "1": 2, "2": 1}


def test_the_zygote_that_served_goes_on_serving_unless_its_release_or_settings_changed(
    daemon: Daemon,
) -> None:
    first = daemon.zygotes()["r1"]
    records = daemon.path("state", "zygotes", "*" + record.SUFFIX)
    eventually(lambda: glob.glob(records), "the next master is to find its zygote")
    daemon.kill()
    daemon.sections["app"] = {"tasks_per_worker": 1, "fork": "never"}
    daemon.write_config()
    daemon.start()
    assert daemon.log().count("zygote started") == 1, "what is proved is what starts"
    daemon.kill()
    daemon.start("--release", daemon.path("releases", "r1"))
    second = daemon.zygotes()["r1"]
    assert second != first, "the operator has it read anew"
    eventually(lambda: not processes.is_alive(first), "nothing needs the first one")
    daemon.kill()
    with open(daemon.path("releases", "r1", "app.py"), "a", encoding="utf-8") as file:
        file.write("\n@task\ndef new() -> int:\n    return 11\n")
    daemon.start()
    assert daemon.client().submit("new", {}).result(30) == 11
    eventually(lambda: not processes.is_alive(second), "nothing needs the second one")


def test_zygotes_that_two_masters_gave_the_same_number_are_both_adopted(daemon: Daemon) -> None:
    """A record that is written late is not there when the next master begins to count."""
    (first,) = counting(daemon)
    daemon.kill()
    (name,) = os.listdir(daemon.path("state", "zygotes"))
    os.rename(daemon.path("state", "zygotes", name), daemon.path(name))
    daemon.start()
    (second,) = counting(daemon)
    daemon.kill()
    os.rename(daemon.path(name), daemon.path("state", "zygotes", name))
    daemon.start()
    daemon.open_gate("go")
    assert first.result(30) == second.result(30) == [0, 1, 2, 3]
    assert {task.status().attempt for task in (first, second)} == {1}
    assert daemon.process is not None and daemon.process.poll() is None


def test_files_that_a_dead_master_did_not_come_to_use_are_removed(daemon: Daemon) -> None:
    daemon.kill()
    slots = daemon.path("state", "slots")
    for name in ("old.load", "old.plan", "old.slot.new", "young.load"):
        with open(os.path.join(slots, name), "w", encoding="utf-8"):
            pass
        if name.startswith("old"):
            os.utime(os.path.join(slots, name), (0, 0))
    daemon.start()
    assert [name for name in os.listdir(slots) if name.startswith("old")] == []
    assert "young.load" in os.listdir(slots), "a worker may be about to read it"


def test_tasks_that_move_do_so_though_the_master_died_right_after_its_deploy(
    daemon: Daemon, new_daemon: Callable[..., Daemon]
) -> None:
    daemon = new_daemon()
    daemon.extra["TASKD_FAULT"] = daemon.path("fault")
    daemon.with_releases(APP, "r1", "r2").start()
    task = daemon.client().submit("moves", {"n": 4})
    daemon.reached(task.id, "1")
    with open(daemon.path("fault"), "w", encoding="utf-8") as file:
        file.write("announce kill")
    daemon.point("r2")
    with daemon.raw() as raw:
        raw.start("reload")
        assert daemon.process is not None
        daemon.process.wait(30)
    daemon.start()
    assert task.result(30) == 4
    assert [(e.item, e.revision) for e in daemon.effects(task.id)] == [
        ("0", "r1"), ("1", "r1"), ("2", "r2"), ("3", "r2"),
    ]  # fmt: skip


def test_a_deploy_carries_on_with_adopted_zygotes_and_orphaned_workers(daemon: Daemon) -> None:
    kept, orphaned, killed = counting(daemon, 3)
    daemon.reload("r2")
    daemon.kill()
    daemon.start()
    os.kill(daemon.zygotes()["r1"], signal.SIGKILL)
    eventually(lambda: "zygote gone revision=r1" in daemon.log(), "its workers are orphans")
    assert daemon.reload("r1")["revision"] == "r1"
    assert daemon.reload("r2")["revision"] == "r2"
    os.kill(daemon.reached(killed.id, "1").pid, signal.SIGKILL)
    assert killed.result(30) == [0, 1, 2, 3]
    daemon.open_gate("go")
    for task in (kept, orphaned):
        assert task.result(30) == [0, 1, 2, 3]
        assert daemon.items(task.id) == ["0", "1", "2", "3"]


def test_a_release_that_does_not_import_any_more_leaves_the_survivors_alone(
    daemon: Daemon,
) -> None:
    (task,) = counting(daemon)
    os.kill(daemon.zygotes()["r1"], signal.SIGKILL)
    daemon.kill()
    app = daemon.path("releases", "r1", "app.py")
    with open(app, encoding="utf-8") as file:
        source = file.read()
    with open(app, "w", encoding="utf-8") as file:
        file.write("raise RuntimeError('not today')\n")
    assert daemon.spawn().wait(30) == 1
    assert processes.is_alive(daemon.reached(task.id, "1").pid)
    with open(app, "w", encoding="utf-8") as file:
        file.write(source)
    daemon.start()
    daemon.open_gate("go")
    assert task.result(30) == [0, 1, 2, 3]
    assert daemon.items(task.id) == ["0", "1", "2", "3"]
