"""What may happen to a slot's file from outside, at each moment: the task ends right, or is held
with what was found, and is never done twice unseen."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
from collections.abc import Callable
from zlib import crc32

import cbor2
import pytest
from support import processes
from support.daemon import Daemon, repeated
from support.taking import claim
from support.waiting import eventually

from taskd.protocol.saved import Kind
from taskd.slot import layout, reader as slot_reader
from taskd.store.api import Submit
from taskd.store.sqlite import SqliteStore

ITEMS = 8
HERE = 5

APP = f"""
from taskd import task
from side import attempt, gate, mark

def made():
    mark("step")
    return 1

@task
def loop(ctx) -> list:
    ctx.step("made", made)
    for n in ctx.each("items", range({ITEMS})):
        mark(n)
        if n == {HERE} and attempt() == 1:
            gate("go")
        ctx.state["seen"] = [*ctx.state.get("seen", []), n]
    return ctx.state["seen"]
"""


class Slots:
    """The slots of two tasks, both at the item where they wait."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        with daemon.client() as client:
            self.tasks = [client.submit("loop").id for _ in range(2)]
        self.workers = [daemon.reached(task, str(HERE)).pid for task in self.tasks]
        self.paths = [self._path(task) for task in self.tasks]

    def _path(self, task: int) -> str:
        for found in os.scandir(self.daemon.path("state", "slots")):
            if found.name.endswith(".slot"):
                with open(found.path, "rb") as file:
                    begin = slot_reader.read(file.fileno()).begin
                if begin is not None and begin["task"] == task:
                    return found.path
        raise AssertionError(f"no slot of task {task}")


def change(path: str, at: int, data: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(data)


def gone(slots: Slots) -> None:
    os.unlink(slots.paths[0])


def empty(slots: Slots) -> None:
    os.truncate(slots.paths[0], 0)


def half_a_header(slots: Slots) -> None:
    os.truncate(slots.paths[0], 100)


def cut_short(slots: Slots) -> None:
    os.truncate(slots.paths[0], os.stat(slots.paths[0]).st_size - 5)


def last_byte(slots: Slots) -> None:
    with open(slots.paths[0], "rb") as file:
        last = file.read()[-1]
    change(slots.paths[0], os.stat(slots.paths[0]).st_size - 1, bytes([last ^ 4]))


def nonsense(slots: Slots, kind: Kind = Kind.STEP) -> None:
    """A record with a right checksum that says nothing."""
    with open(slots.paths[0], "rb") as file:
        seed = layout.seed(slot_reader.read_header(file.fileno()).worker)
    end = os.stat(slots.paths[0]).st_size
    body = layout.encode_body(kind, {})
    change(slots.paths[0], end, layout.frame(seed, end, body))


def empty_begin(slots: Slots) -> None:
    nonsense(slots, Kind.BEGIN)


def empty_end(slots: Slots) -> None:
    nonsense(slots, Kind.END)


def a_pipe(slots: Slots) -> None:
    """Who opens one waits for its other end."""
    os.unlink(slots.paths[0])
    os.mkfifo(slots.paths[0])


def a_directory(slots: Slots) -> None:
    os.unlink(slots.paths[0])
    os.mkdir(slots.paths[0])


def from_the_future(slots: Slots) -> None:
    with open(slots.paths[0], "rb") as file:
        block = bytearray(file.read(layout.BLOCK - 4))
    block[8:10] = (2).to_bytes(2, "big")
    change(slots.paths[0], 0, bytes(block) + crc32(block).to_bytes(4, "big"))


def swapped(slots: Slots) -> None:
    one, other = slots.paths
    os.rename(one, f"{one}.x")
    os.rename(other, one)
    os.rename(f"{one}.x", other)


def replaced(slots: Slots) -> None:
    os.unlink(slots.paths[0])
    with open(slots.paths[0], "wb") as file:
        file.write(b"something else" * 1000)


def copied_over(slots: Slots) -> None:
    """By the other's, whose own is there as well."""
    with open(slots.paths[1], "rb") as file:
        other = file.read()
    os.unlink(slots.paths[0])
    with open(slots.paths[0], "wb") as file:
        file.write(other)


FAULTS = [
    *(gone, empty, half_a_header, cut_short, last_byte, from_the_future),
    *(swapped, replaced, copied_over, nonsense, empty_begin, empty_end, a_pipe, a_directory),
]


def worker_lives(slots: Slots, fault: Callable[[Slots], None]) -> None:
    fault(slots)
    slots.daemon.open_gate("go")


def worker_dies(slots: Slots, fault: Callable[[Slots], None]) -> None:
    fault(slots)
    os.kill(slots.workers[0], signal.SIGKILL)
    slots.daemon.open_gate("go")


def both_die(slots: Slots, fault: Callable[[Slots], None]) -> None:
    slots.daemon.kill()
    fault(slots)
    os.kill(slots.workers[0], signal.SIGKILL)
    slots.daemon.start()
    slots.daemon.open_gate("go")


def all_die(slots: Slots, fault: Callable[[Slots], None]) -> None:
    slots.daemon.kill_everything()
    fault(slots)
    slots.daemon.start()
    slots.daemon.open_gate("go")


def daemon_dies(slots: Slots, fault: Callable[[Slots], None]) -> None:
    slots.daemon.kill()
    fault(slots)
    slots.daemon.start()
    slots.daemon.open_gate("go")


MOMENTS = [worker_lives, worker_dies, both_die, all_die, daemon_dies]


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_task_whose_slot_is_tampered_with_ends_right_or_is_held(
    new_daemon: Callable[..., Daemon],
    fault: Callable[[Slots], None],
    moment: Callable[[Slots, Callable[[Slots], None]], None],
) -> None:
    daemon = new_daemon()
    daemon.with_releases(APP, "r1").start()
    slots = Slots(daemon)
    moment(slots, fault)
    for task in slots.tasks:
        with daemon.client() as client:
            found = client.handle(task).wait(60)
            assert found.state in ("succeeded", "held"), found
            if fault is swapped:
                assert found.state == "succeeded", "both are put right"
            twice = repeated(daemon.effects(task))
            if fault is not cut_short:  # which cannot be told from what a crash leaves
                assert twice.keys() <= {(task, str(HERE))}, f"unseen: {twice}, {found}"
            if found.state == "held":
                assert "slot" in str(found.reason)
                if (kept := str(found.reason).partition("It is kept as ")[2]) != "":
                    eventually(functools.partial(os.path.exists, kept), str(found.reason))
                client.handle(task).retry()
            assert client.handle(task).result(60) == list(range(ITEMS))


def test_what_stands_under_a_dead_workers_name_and_is_not_its_slot_is_let_be(
    new_daemon: Callable[..., Daemon],
) -> None:
    """Two living workers' slots have changed names. One dies, and later all of them do: the other's
    is still there, under the name of the first."""
    daemon = new_daemon()
    daemon.with_releases(APP, "r1").start()
    slots = Slots(daemon)
    with open(slots.paths[1], "rb") as file:
        other = os.fstat(file.fileno()).st_ino
    swapped(slots)
    os.kill(slots.workers[0], signal.SIGKILL)
    daemon.reached(slots.tasks[0], str(HERE), attempt=2)
    with daemon.client() as client:
        assert client.handle(slots.tasks[0]).result(30) == list(range(ITEMS))
    assert os.stat(slots.paths[0]).st_ino == other
    all_die(slots, lambda _: None)
    with daemon.client() as client:
        assert client.handle(slots.tasks[1]).result(30) == list(range(ITEMS))
    assert repeated(daemon.effects(slots.tasks[1])).keys() <= {(slots.tasks[1], str(HERE))}


def test_a_task_that_was_claimed_and_never_sent_is_run_and_not_held(
    new_daemon: Callable[..., Daemon],
) -> None:
    """The daemon died between the two: its idle worker leaves, and its slot stays to say that
    nothing was begun."""
    daemon = new_daemon()
    daemon.with_releases(APP, "r1")
    daemon.open_gate("go")
    daemon.start()
    with daemon.client() as client:
        first = client.submit("loop")
        assert first.result(30) == list(range(ITEMS))
    slot = daemon.slot(daemon.effects(first.id)[-1].pid)
    with open(slot, "rb") as file:
        header = slot_reader.read_header(file.fileno())
    daemon.kill()
    eventually(lambda: not processes.is_alive(header.pid), "the idle worker leaves")
    with contextlib.closing(SqliteStore(daemon.path("state", "store.db"))) as store:
        new = Submit(
            os.urandom(16), 0, "loop", 1, b"\xa0", "", "default", 0, None, None, 0, None, 0
        )
        owner = cbor2.dumps([header.worker, *header.owner])
        claimed = claim(first.id + 1, at=0.0, worker=owner)
        (taken,) = store.apply(store.last() + 1, [new, claimed])[1].result
        assert taken.row.attempt == 1
    daemon.start()
    with daemon.client() as client:
        assert client.handle(first.id + 1).result(30) == list(range(ITEMS))
    eventually(lambda: not os.path.exists(slot), "the slot is removed")
