"""What is on the machine by our name and is not ours: Debian 12's own package `taskd` above all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support import roots
from support.machine import Machine
from support.roots import Debian
from support.service import Service
from test_installed import contents

DATA = "/var/lib/taskd/orgs/ME/users/tx.data"
OURS = ("/opt/taskd/bin/taskd",)


@pytest.fixture
def taskserver(
    boot: Callable[[list[Path]], Machine], installed: Callable[[Debian], list[Path]]
) -> Machine:
    """Debian 12 with its own `taskd`, Taskwarrior's server, and somebody's data in it."""
    top, *below = installed(roots.FLOOR)
    machine = boot([top, roots.with_package(roots.FLOOR, "taskd"), *below])
    machine.write(DATA, "precious\n")
    machine.run("chown", "-R", "Debian-taskd:", "/var/lib/taskd")
    return machine


def test_debians_own_taskd_is_neither_shadowed_nor_removed(taskserver: Machine) -> None:
    machine, before = taskserver, contents(taskserver)
    for options in ((), ("--dry-run",)):
        refused = machine.run(*OURS, "install", *options, check=False)
        assert refused.returncode == 1 and not refused.stdout
        for name in ("/lib/systemd/system/taskd.service", "/etc/init.d/taskd", "--name APP"):
            assert name in refused.stderr
        assert "/var/lib/taskd (with config, orgs)" in refused.stderr
        assert "/etc/taskd (with config)" in refused.stderr
    said = machine.says(*OURS, "uninstall", "--stop", "--purge")
    assert said == "nothing to remove: taskd.service is not installed"
    assert contents(machine) == before
    assert machine.says("dpkg", "--verify", "taskd") == ""


def test_beside_debians_own_taskd_there_is_room_for_one_with_a_name(taskserver: Machine) -> None:
    machine, before = taskserver, contents(taskserver)
    shop = Service(machine, "shop")
    assert "/usr/bin/taskd is another program, behind it" in shop.install()
    shop.configure()
    shop.start()
    assert shop.result(shop.submit("count", "to=2")) == "r1"
    machine.run(*OURS, "uninstall", "--name", "shop", "--stop", "--purge")
    theirs = {line for line in before if "taskd" in line.split()[0] and "/opt/" not in line}
    assert theirs and theirs <= contents(machine) | {
        line
        for line in before
        if line.split()[0] == "/etc/taskd"  # its time of change
    }
    assert machine.read(DATA) == "precious\n"


def test_somebody_elses_user_is_not_the_service(machine: Machine) -> None:
    machine.run("useradd", "--home-dir", "/var/taskd", "--create-home", "taskd")
    before = contents(machine)
    refused = machine.run(*OURS, "install", check=False)
    assert refused.returncode == 1 and "the user taskd (home /var/taskd" in refused.stderr
    assert contents(machine) == before


def test_what_is_there_without_a_mark_gets_it_by_the_next_installation(machine: Machine) -> None:
    service = Service(machine)
    service.install()
    service.configure()
    service.start()
    task = service.submit("count", "to=2")
    service.result(task)
    marks = [f"/var/{place}/taskd/.taskd-supervisor" for place in ("lib", "log")]
    machine.run("rm", *marks)  # as an earlier version has left it

    said = machine.says(*OURS, "uninstall", "--stop", "--purge")
    assert "left, since not all in it may be taskd's" in said
    assert said.endswith("/var/lib/taskd, /var/log/taskd")
    assert machine.run("test", "-s", "/var/lib/taskd/store.db")

    said = service.install()
    assert all(f"created  {mark}" in said for mark in marks)
    service.configure()
    service.start()
    assert service.show(task)["state"] == "succeeded"
    machine.run(*OURS, "uninstall", "--stop", "--purge")
    assert machine.run("ls", "/var/lib/taskd", "/var/log/taskd", check=False).stdout == ""


def test_the_last_one_with_a_name_takes_the_templates_along(machine: Machine) -> None:
    plain, shop = Service(machine), Service(machine, "shop")
    plain.install()
    shop.install()
    machine.run(*OURS, "uninstall", "--name", "shop", "--purge")
    machine.run(*OURS, "uninstall", "--purge")
    find = ("find", "/etc", "/usr/local", "/var/lib", "/var/log", "-name", "*taskd*")
    assert machine.says(*find) == ""
