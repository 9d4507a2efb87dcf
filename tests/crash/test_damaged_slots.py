"""A slot that the disk has damaged: what stands before the damage counts, and the file is kept."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from support.daemon import Daemon
from support.waiting import eventually

from taskd.client.blocking import TaskHandle
from taskd.protocol.saved import Kind
from taskd.slot import reader as slot_reader

ITEMS = 8
HERE = 5
"""The item at which the worker is killed: those before it are saved."""

APP = f"""
from taskd import task
from side import attempt, gate, mark

@task
def loop(ctx) -> list:
    for n in ctx.each("items", range({ITEMS})):
        mark(n)
        if n == {HERE} and attempt() == 1:
            gate("never")  # the test kills the worker here
        ctx.state["seen"] = [*ctx.state.get("seen", []), n]
    return ctx.state["seen"]
"""


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    made = new_daemon()
    return made.with_releases(APP, "r1").start()


def begun(daemon: Daemon) -> tuple[TaskHandle, int, str]:
    """A task at the item where it waits: it, its worker, and its slot."""
    task = daemon.client().submit("loop")
    worker = daemon.reached(task.id, str(HERE)).pid
    folder = daemon.path("state", "slots")
    return task, worker, next(p for p in os.scandir(folder) if is_of(task.id, p.path)).path


def is_of(task: int, path: str) -> bool:
    """Whether it is that task's slot, and not a spare worker's."""
    if not path.endswith(".slot"):
        return False  # it is being made
    with open(path, "rb") as file:
        begin = slot_reader.read(file.fileno()).begin
    return begin is not None and begin["task"] == task


def flip(path: str, offset: int) -> bytes:
    """One bit of one byte is another now; the file as it is then."""
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))
        file.seek(0)
        return file.read()


def records(path: str) -> list[int]:
    """Where the records of its loop begin."""
    with open(path, "rb") as file:
        return [r.offset for r in slot_reader.read(file.fileno()).records if r.kind == Kind.LOOP]


def check_held(daemon: Daemon, task: TaskHandle, why: str, slot: bytes) -> None:
    """Held with that reason, and with the slot as it was in a file that the reason names."""
    found = task.wait(30)
    assert found.state == "held"
    aside = daemon.path("state", "slots", f"{task.id}-1.damaged")
    assert why in str(found.reason)
    assert str(found.reason).endswith(f"It is kept as {aside}")

    def kept() -> bytes | None:
        try:
            with open(aside, "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None

    assert eventually(kept, "the slot is set aside").startswith(slot)


@pytest.mark.parametrize("lives", [True, False], ids=["daemon lives", "daemon dies too"])
def test_a_task_is_held_with_what_stands_before_the_damage_and_continues_from_there(
    daemon: Daemon, lives: bool
) -> None:
    task, worker, path = begun(daemon)
    found = records(path)
    assert len(found) >= HERE - 1
    if not lives:
        daemon.kill()
    slot = flip(path, found[3] + 12)  # records 0 to 2 are whole, and so are those behind it
    os.kill(worker, signal.SIGKILL)
    if not lives:
        daemon.start()
    task = daemon.client().handle(task.id)
    check_held(daemon, task, "its slot is damaged: ", slot)
    task.retry()
    assert task.result(30) == list(range(ITEMS)), "no item was lost"
    again = [int(e.item) for e in daemon.effects(task.id) if e.attempt > 1]
    assert again == list(range(3, ITEMS)), "what was saved before the damage was not done again"


@pytest.mark.parametrize("lives", [True, False], ids=["daemon lives", "daemon dies too"])
def test_a_slot_whose_header_is_damaged_is_kept_as_well(daemon: Daemon, lives: bool) -> None:
    task, worker, path = begun(daemon)
    if not lives:
        daemon.kill()
    slot = flip(path, 20)
    os.kill(worker, signal.SIGKILL)
    if not lives:
        daemon.start()
    task = daemon.client().handle(task.id)
    check_held(daemon, task, "its slot cannot be read: ", slot)
    task.retry()
    assert task.result(30) == list(range(ITEMS))


@contextmanager
def killed_when_it_renames(daemon: Daemon, path: str) -> Iterator[None]:
    """The master gets SIGKILL in place of its next rename of that file."""
    how = ["strace", "-f", "-p", str(daemon.pid), "-P", path, "-o", "/dev/null"]
    kill = ["-e", "trace=rename,renameat2", "-e", "inject=rename,renameat2:signal=KILL:error=EIO"]
    with subprocess.Popen([*how, *kill], stderr=subprocess.PIPE, text=True) as tracing:
        assert tracing.stderr is not None
        try:
            assert "attached" in tracing.stderr.readline()
            yield
        finally:
            tracing.kill()


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_a_damaged_slot_is_kept_though_the_master_dies_before_it_is_set_aside(
    daemon: Daemon,
) -> None:
    """That it is kept is recorded by then; its next start would take it for what nobody needs."""
    task, worker, path = begun(daemon)
    slot = flip(path, records(path)[3] + 12)
    with killed_when_it_renames(daemon, path):
        os.kill(worker, signal.SIGKILL)
        assert daemon.process is not None
        assert daemon.process.wait(30) == -signal.SIGKILL
    daemon.start()
    task = daemon.client().handle(task.id)
    check_held(daemon, task, "its slot is damaged: ", slot)
    eventually(lambda: not os.path.exists(path), "the slot has no other name")
    check_held(daemon, task, "its slot is damaged: ", slot)
