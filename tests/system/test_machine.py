"""The test machines themselves: they boot, they reboot, and they leave nothing behind."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import psutil
from support.machine import Machine
from support.roots import Debian
from support.waiting import eventually


def test_a_machine_boots_with_the_systemd_and_python_that_it_stands_for(
    machine: Machine, debian: Debian
) -> None:
    assert machine.says("systemctl", "--version").split()[1] == str(debian.systemd)
    python = machine.says("/opt/taskd/bin/python", "-V")
    assert python.startswith(f"Python {debian.python}.")
    assert machine.says("/opt/taskd/bin/taskd", "--version").startswith("taskd ")
    assert machine.says("id", "-un", user="alice") == "alice"


def test_what_is_on_the_disk_outlives_a_reboot(machine: Machine) -> None:
    machine.write("/var/lib/kept", "kept\n")
    machine.write("/run/lost", "lost\n")
    boot = machine.read("/proc/sys/kernel/random/boot_id")
    machine.reboot()
    assert machine.read("/var/lib/kept") == "kept\n"
    assert machine.run("cat", "/run/lost", check=False).returncode == 1
    assert machine.read("/proc/sys/kernel/random/boot_id") != boot


def test_two_machines_at_once_do_not_know_of_each_other(
    boot: Callable[[list[Path]], Machine],
    installed: Callable[[Debian], list[Path]],
    debian: Debian,
) -> None:
    one, other = boot(installed(debian)), boot(installed(debian))
    one.run("systemd-run", "--quiet", "--unit=only-here", "sleep", "infinity")
    assert one.property("only-here", "ActiveState") == "active"
    assert other.property("only-here", "ActiveState") == "inactive"
    other.run("systemctl", "daemon-reload")
    assert one.property("only-here", "ActiveState") == "active"


def test_an_ended_machine_leaves_no_process_and_no_mount(
    installed: Callable[[Debian], list[Path]], debian: Debian
) -> None:
    machine = Machine(installed(debian))
    try:
        machine.wait_until_booted()
        inside = psutil.Process(machine.leader).children(recursive=True)
        assert inside
    finally:
        machine.end()
    eventually(lambda: not any(process.is_running() for process in inside), "no process")
    assert "taskd-machine-" not in Path("/proc/self/mountinfo").read_text()
    assert not [name for name in os.listdir("/tmp") if name == machine._place.name]
