"""When the owner of a slot is dead, with real processes that die, lie and live on."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from slot_samples import BEGIN, WORKER, Child

from taskd.posix import locks, process
from taskd.protocol.saved import Kind
from taskd.slot import reader
from taskd.slot.owner import is_dead
from taskd.slot.writer import SlotWriter

EXIT_CALL = {"x86_64": 60, "aarch64": 93, "riscv64": 93}


def owner(directory: Path, then: Callable[[SlotWriter], None] = lambda slot: None) -> Child:
    """A process that creates a slot, begins an attempt and does ``then``."""

    def work() -> None:
        slot = SlotWriter.create(str(directory), WORKER, process.identity(), "r1")
        slot.append(Kind.BEGIN, BEGIN)
        then(slot)

    return Child(work)


class Seen:
    """The slot as the master has it: by its own descriptor."""

    def __init__(self, directory: Path) -> None:
        self.fd = os.open(directory / (WORKER.hex() + ".slot"), os.O_RDONLY)
        self.header = reader.read_header(self.fd)

    @property
    def dead(self) -> bool:
        return is_dead(self.fd, self.header)

    def __enter__(self) -> Seen:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)


def test_a_living_owner_is_not_dead_and_a_killed_one_is(tmp_path: Path) -> None:
    with owner(tmp_path) as child, Seen(tmp_path) as slot:
        assert slot.header.pid == child.pid
        assert not slot.dead
        child.kill()
        assert slot.dead, "a zombie does nothing more"
        child.reap()
        assert slot.dead
        assert reader.read(slot.fd).begin == BEGIN


def test_a_stopped_owner_is_not_dead(tmp_path: Path) -> None:
    with owner(tmp_path) as child, Seen(tmp_path) as slot:
        os.kill(child.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, child.pid, os.WSTOPPED)
        assert not slot.dead


def test_a_dropped_lock_with_the_process_alive_is_not_death(tmp_path: Path) -> None:
    """User code that opens the slot and closes it again drops the lock without knowing."""

    def open_and_close(slot: SlotWriter) -> None:
        os.close(os.open(tmp_path / slot.name, os.O_RDONLY))

    with owner(tmp_path, open_and_close) as child, Seen(tmp_path) as slot:
        assert locks.holder(slot.fd) is None
        assert not slot.dead
        child.kill()
        assert slot.dead


def test_a_forked_child_of_user_code_does_not_hold_the_lock(tmp_path: Path) -> None:
    reads, writes = os.pipe()

    def fork(slot: SlotWriter) -> None:
        pid = os.fork()
        if pid == 0:
            while True:
                signal.pause()
        os.write(writes, str(pid).encode())

    with owner(tmp_path, fork) as child, Seen(tmp_path) as slot:
        grandchild = int(os.read(reads, 20))
        try:
            assert locks.holder(slot.fd) == child.pid
            child.kill()
            assert not process.is_gone(process.identity(grandchild))
            assert slot.dead, "its child lives and has the descriptor, but not the lock"
        finally:
            os.kill(grandchild, signal.SIGKILL)
            os.close(reads)
            os.close(writes)


def test_a_forked_child_that_closes_the_slot_does_not_drop_its_parents_lock(tmp_path: Path) -> None:
    def fork_and_close(slot: SlotWriter) -> None:
        pid = os.fork()
        if pid == 0:
            os.close(slot.fd)
            os._exit(0)
        os.waitpid(pid, 0)

    with owner(tmp_path, fork_and_close) as child, Seen(tmp_path) as slot:
        assert locks.holder(slot.fd) == child.pid


def test_an_owner_whose_main_thread_has_ended_is_not_dead(tmp_path: Path) -> None:
    """Such a process is shown as a zombie, and works on."""
    number = EXIT_CALL.get(platform.machine())
    if number is None:
        pytest.skip("how one thread ends is not known here for this processor")
    reads, writes = os.pipe()

    def work_on() -> None:
        os.write(writes, b"on")
        while True:
            signal.sigwait([signal.SIGUSR2])

    pid = os.fork()
    if pid == 0:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
        SlotWriter.create(str(tmp_path), WORKER, process.identity(), "r1")
        threading.Thread(target=work_on).start()
        ctypes.CDLL(None).syscall(number, 0)
    try:
        assert os.read(reads, 2) == b"on"
        with Seen(tmp_path) as slot:
            while not process.is_gone(slot.header.owner):
                os.sched_yield()  # the main thread is on its way out
            assert locks.holder(slot.fd) == pid
            assert not slot.dead
            os.kill(pid, signal.SIGKILL)
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            assert slot.dead
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(reads)
        os.close(writes)


def test_a_reused_pid_and_another_boot_are_not_the_owner(tmp_path: Path) -> None:
    with owner(tmp_path) as child, Seen(tmp_path) as slot:
        header = slot.header
        child.kill()
        child.reap()
        me = process.identity()
        assert is_dead(slot.fd, header._replace(pid=me.pid)), "that pid is another process now"
        assert is_dead(slot.fd, header._replace(pid=me.pid, start=me.start, boot="an earlier one"))
        assert not is_dead(slot.fd, header._replace(pid=me.pid, start=me.start))
