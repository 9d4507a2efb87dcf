"""A disk without room: refused clearly, waited for visibly, nothing lost, gone on by itself."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from looking import problems, reason
from support.daemon import Daemon, repeated
from support.mounts import MIB, Mounted
from support.waiting import eventually

import taskd


def submit_until_refused(daemon: Daemon) -> tuple[list[int], taskd.Error]:
    """Those that were acknowledged, and how the next one was refused."""
    acknowledged = []
    with daemon.client() as client:
        while True:
            try:
                acknowledged.append(client.submit("quick", {"text": "x" * 3000}).id)
            except taskd.Refused as refused:
                return acknowledged, refused


def check_all_done_once(daemon: Daemon, tasks: list[int]) -> None:
    with daemon.client() as client:
        for task in tasks:
            assert client.handle(task).result(30) == 3000
    assert repeated([e for e in daemon.effects() if e.task in tasks]) == {}


def test_a_full_state_directory_refuses_keeps_all_and_goes_on_once_there_is_room(
    mounted: Callable[..., Mounted],
) -> None:
    daemon = mounted(queues={"default": {"concurrency": 1}})
    daemon.small("state")
    daemon.start()
    with daemon.client() as client:
        running = client.submit("loop").id
        daemon.reached(running, "2")
        waiting = [client.submit("quick", {"text": "y" * 3000}).id for _ in range(3)]
        daemon.fill("state")
        more, refused = submit_until_refused(daemon)
        assert f"the disk is full; free some space in {daemon.path('state')}" in str(refused)
        assert "nothing new is accepted or started: the store" in problems(daemon)[0]

        daemon.open_gate("go")  # it has room for its end: that was kept for it
        daemon.reached(running, "5")
        eventually(lambda: "cannot be recorded yet" in reason(daemon, running))
        assert client.handle(running).status().state == "running"
        assert daemon.items(running) == ["0", "1", "2", "3", "4", "5"]

        daemon.make_room("state")
        assert client.handle(running).result(30) == 6
        check_all_done_once(daemon, waiting + more)
        assert client.submit("quick", {"text": "z"}).result(30) == 1
        eventually(lambda: not problems(daemon), "the problems are over")
    assert daemon.items(running) == ["0", "1", "2", "3", "4", "5"]


def test_a_task_that_finds_no_room_to_save_waits_says_so_and_goes_on(
    mounted: Callable[..., Mounted],
) -> None:
    daemon = mounted()
    daemon.with_releases(SAVER, "r0")
    daemon.small("state", 4 * MIB)
    daemon.start()
    with daemon.client() as client:
        task = client.submit("saver")
        daemon.reached(task.id, "begun")
        daemon.fill("state")
        daemon.open_gate("go")
        where = os.path.join(daemon.path("state"), "slots")
        words = f"cannot save: no room in the slot: No space left on device; make room in {where}"
        assert eventually(lambda: (r := reason(daemon, task.id)) != "None" and r) == words
        daemon.make_room("state")
        assert task.result(30) == 30
        assert task.status().reason is None
    assert daemon.items(task.id) == ["begun", *(str(n) for n in range(30))]


SAVER = """
from taskd import task
from side import gate, mark

@task
def saver(ctx) -> int:
    mark("begun")
    gate("go")
    for n in range(30):  # more than was allocated ahead
        ctx.step(f"step {n}", lambda n=n: mark(n) or "x" * 20000)
    return 30
"""


def test_a_full_log_directory_ends_no_task_and_the_log_says_what_is_missing(
    mounted: Callable[..., Mounted],
) -> None:
    daemon = mounted()
    daemon.small("logs", MIB)
    daemon.start()
    with daemon.client() as client:
        task = client.submit("talk")
        daemon.reached(task.id, "before")
        daemon.fill("logs")
        daemon.open_gate("go")
        daemon.reached(task.id, "talked")
        daemon.make_room("logs")
        daemon.open_gate("go-2")
        assert task.result(30) == "done"
    log = daemon.task_log(task.id)
    assert log.startswith("before\n")
    assert log.endswith("after\n")
    assert "bytes found no room here]" in log


def test_a_log_directory_that_may_not_be_written_puts_a_task_off_at_no_cost(
    mounted: Callable[..., Mounted],
) -> None:
    daemon = mounted()
    daemon.start()
    daemon.read_only("logs")
    with daemon.client() as client:
        task = client.submit("quick", {"text": "abc"})
        words = f"cannot begin yet: [Errno 30] Read-only file system: '{daemon.path('logs')}/"
        eventually(lambda: reason(daemon, task.id).startswith(words))
        other = client.submit("quick")
        eventually(lambda: reason(daemon, other.id).startswith(words))
        other.cancel()
        assert other.wait(30).state == "cancelled"
        daemon.unmount("logs")
        assert task.result(30) == 3
        assert (task.status().state, task.status().attempt) == ("succeeded", 1)


def test_a_log_directory_that_was_removed_is_made_anew(mounted: Callable[..., Mounted]) -> None:
    daemon = mounted()
    daemon.start()
    os.rmdir(daemon.path("logs"))
    with daemon.client() as client:
        task = client.submit("talk")
        daemon.reached(task.id, "before")
        assert os.path.exists(daemon.path("logs", f"{task.id}.log"))
        daemon.open_gate("go")
        daemon.open_gate("go-2")
        assert task.result(30) == "done"


def test_a_state_directory_that_may_not_be_written_starts_nobody_and_says_so(
    mounted: Callable[..., Mounted],
) -> None:
    daemon = mounted()
    daemon.start()
    with daemon.client() as client:
        running = client.submit("loop").id
        daemon.reached(running, "2")
        daemon.read_only("state")
        waiting = [client.submit("quick") for _ in range(3)]  # the store itself is open
        slots = os.path.join(daemon.path("state"), "slots")
        words = "no worker can be started: cannot make its slot: [Errno 30] Read-only file system"
        eventually(lambda: any(p.startswith(f"{words}: '{slots}/") for p in problems(daemon)))
        said = f"waits: {words}"  # but for one that has met a worker that was there already
        eventually(lambda: any(reason(daemon, task.id).startswith(said) for task in waiting))
        daemon.open_gate("go")
        assert client.handle(running).result(30) == 6, "what runs carries on"
        daemon.unmount("state")
        for task in waiting:
            assert task.result(30) == 0
            assert task.status().attempt == 1


def test_a_deploy_without_room_is_refused_with_the_directory_and_the_old_revision_serves_on(
    mounted: Callable[..., Mounted],
) -> None:
    daemon = mounted()
    daemon.small("state")
    daemon.start()
    with daemon.client() as client:
        running = client.submit("loop")
        daemon.reached(running.id, "2")
        daemon.fill("state")
        with pytest.raises(taskd.Refused) as refused:
            daemon.reload("r2")
        slots = os.path.join(daemon.path("state"), "slots")
        assert "No space left on device" in str(refused.value)
        assert slots in str(refused.value)
        assert "exit status" not in str(refused.value)
        assert client.status()["revision"] == "r1"
        daemon.make_room("state")
        assert daemon.reload("r2")["revision"] == "r2"
        daemon.open_gate("go")
        assert running.result(30) == 6
    assert daemon.items(running.id) == ["0", "1", "2", "3", "4", "5"]


def test_a_file_system_that_turns_read_only_keeps_everything_for_the_next_start(
    mounted: Callable[..., Mounted],
) -> None:
    """Even what is open cannot be written then, as after an error of the disk."""
    daemon = mounted(queues={"default": {"concurrency": 1}})
    daemon.ext4("state")
    daemon.start()
    with daemon.client() as client:
        running = client.submit("loop").id
        daemon.reached(running, "2")
        waiting = [client.submit("quick", {"text": "y" * 3000}).id for _ in range(3)]
        daemon.turn_read_only("state")
        more, refused = submit_until_refused(daemon)
        assert daemon.path("state") in str(refused)
        daemon.open_gate("go")
        slots = os.path.join(daemon.path("state"), "slots")
        words = f"cannot save: the slot cannot be written: Read-only file system: {slots}"
        eventually(lambda: reason(daemon, running) == words, "its worker waits, and says for what")
        assert client.status()["states"]["queued"] == len(waiting + more)
    daemon.kill_everything()
    daemon.unmount("state")
    daemon.ext4("state")
    daemon.start()
    with daemon.client() as client:
        assert client.handle(running).result(30) == 6
    check_all_done_once(daemon, waiting + more)
    assert set(daemon.items(running)) == {"0", "1", "2", "3", "4", "5"}, "none is skipped"
