"""How much memory there is for more, from the machine and from the control groups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from taskd.posix import memory

KIB = 1024


class Machine:
    """A /proc and a /sys/fs/cgroup of the test's own."""

    def __init__(self, root: Path) -> None:
        self.proc, self.cgroups = root / "proc", root / "cgroup"
        (self.proc / "self").mkdir(parents=True)
        self.cgroups.mkdir()

    def has(self, available: int) -> None:
        text = f"MemTotal:       9999999 kB\nMemAvailable:   {available} kB\nHugePages_Total:  0\n"
        (self.proc / "meminfo").write_text(text)

    def is_in(self, path: str) -> None:
        (self.proc / "self" / "cgroup").write_text(f"4:memory:/old\n0::{path}\n")

    def group(self, path: str, limit: str, used: int, cached: int | None = None) -> None:
        folder = self.cgroups / path
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{used}\n")
        if cached is not None:
            (folder / "memory.stat").write_text(f"anon 1\nfile 7\ninactive_file {cached}\nslab 3\n")

    def available(self) -> int | None:
        return memory.available(str(self.proc), str(self.cgroups))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_without_control_groups_it_is_what_the_machine_has(machine: Machine) -> None:
    machine.has(500)
    assert machine.available() == 500 * KIB
    machine.is_in("/system.slice/taskd.service")  # no such directory: another kind of groups
    assert machine.available() == 500 * KIB


def test_the_tightest_limit_of_all_groups_around_us_counts(machine: Machine) -> None:
    machine.has(10_000)
    machine.is_in("/system.slice/taskd.service")
    machine.group("system.slice/taskd.service", "max", 5)
    assert machine.available() == 10_000 * KIB
    machine.group("system.slice", "100000", 60_000)
    assert machine.available() == 40_000
    machine.group("system.slice/taskd.service", "50000", 49_000, cached=500)
    assert machine.available() == 1_500
    machine.group("", "70000", 69_000)
    assert machine.available() == 1_000, "of a container's own root too"


def test_a_group_above_its_limit_has_nothing_left(machine: Machine) -> None:
    machine.has(10_000)
    machine.is_in("/")
    machine.group("", "1000", 3000)
    assert machine.available() == 0


def test_a_limit_that_is_far_away_does_not_raise_what_the_machine_has(machine: Machine) -> None:
    machine.has(100)
    machine.is_in("/a")
    machine.group("a", str(1 << 50), 0)
    assert machine.available() == 100 * KIB


def test_where_the_kernel_tells_nothing_nothing_is_known(machine: Machine) -> None:
    assert machine.available() is None


def test_this_machine_has_memory() -> None:
    found = memory.available()
    assert found is not None
    assert found > 0


def test_a_process_alone_takes_all_that_it_shares_with_its_children() -> None:
    """Its proportional share halves with the first child; what a fresh one takes does not."""
    ballast = b"x" * (16 << 20)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    try:
        found = memory.alone(os.getpid())
        assert found is not None
        assert found > len(ballast)
    finally:
        os.close(writing)
        os.close(reading)
        os.waitpid(pid, 0)


def test_a_process_that_is_gone_has_no_memory_to_tell_of() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    assert memory.alone(pid) is None
