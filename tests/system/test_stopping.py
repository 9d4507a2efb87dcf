"""Stops, restarts, reboots and a daemon that hangs: what `systemctl` promises to the tasks."""

from __future__ import annotations

import pytest
from support.machine import Machine
from support.service import Service
from support.waiting import eventually

GROUP = "/sys/fs/cgroup/system.slice/taskd.service"


@pytest.fixture
def service(machine: Machine) -> Service:
    """Installed, not started: tests differ in its configuration."""
    service = Service(machine)
    service.install()
    service.configure()
    return service


def once_each(service: Service, task: str) -> int:
    """How many items the task has done: each once, none left out."""
    items = [int(line.item) for line in service.trace() if line.task == task]
    assert items == list(range(len(items)))
    return len(items)


def stopped(service: Service) -> None:
    """Nothing of it runs, and systemd finds nothing wrong."""
    machine = service.machine
    assert service.state == "inactive"
    assert machine.property(service.unit, "Result") == "success"
    assert machine.failed_units() == ""
    assert machine.run("test", "-e", GROUP, check=False).returncode == 1, "its group is gone"
    assert service.processes() == []


def test_a_stop_asks_all_to_leave_takes_its_time_says_who_did_not_and_a_start_goes_on(
    service: Service,
) -> None:
    machine = service.machine
    service.set("daemon", 'stop_timeout = "5s"')
    service.drop_in("TimeoutStopSec=1")  # the daemon asks for more
    service.start()
    leaving = [service.submit("long", "path=/tmp/go") for _ in range(3)]
    staying = service.submit("stay", "path=/tmp/go")
    began = service.began(*leaving, staying)
    shown = service.ctl("drain")
    assert "a stop would interrupt 4 tasks, and wait 5s at most" in shown
    eventually(lambda: machine.property(service.unit, "StatusText") == "r1; 4 running", "a status")
    machine.run("systemctl", "stop", service.unit)
    stopped(service)
    said = f"3 left at a safe point, 1 did not and was ended: {staying}"
    assert said in machine.journal("--unit", service.unit)
    machine.run("systemctl", "start", service.unit)
    again = service.began(*leaving, staying)
    eventually(lambda: service.trace()[-1].pid not in {line.pid for line in began.values()})
    service.let_go("/tmp/go")
    assert [service.result(task) for task in (*leaving, staying)] == ["r1"] * 4
    for task in leaving:
        assert (
            once_each(service, task) > int(again[task].item) and service.show(task)["attempt"] == 2
        )
    assert service.items(staying) == {"began": 2, "ended": 1}


def test_an_uninstallation_stops_as_a_stop_does_and_says_who_did_not_leave(
    service: Service,
) -> None:
    service.set("daemon", 'stop_timeout = "1s"')
    service.start()
    staying = service.submit("stay", "path=/tmp/go")
    service.began(staying)
    service.machine.run("/opt/taskd/bin/taskd", "uninstall", "--stop")
    assert service.processes() == []
    journal = service.machine.journal("--unit", service.unit)
    assert f"0 left at a safe point, 1 did not and was ended: {staying}" in journal
    assert "no daemon is reachable" not in journal


def test_a_restart_keeps_who_does_not_leave_in_time(service: Service) -> None:
    machine = service.machine
    service.set("daemon", 'stop_timeout = "3s"')
    service.start()
    leaving, staying = (
        service.submit("long", "path=/tmp/go"),
        service.submit("stay", "path=/tmp/go"),
    )
    began = service.began(leaving, staying)
    before = service.pid
    machine.run("systemctl", "restart", service.unit)
    assert service.pid != before and service.state == "active"
    assert f"1 did not and goes on: {staying}" in machine.journal("--unit", service.unit)
    service.let_go("/tmp/go")
    assert [service.result(task) for task in (leaving, staying)] == ["r1"] * 2
    assert once_each(service, leaving) and service.show(leaving)["attempt"] == 2
    assert service.show(staying)["attempt"] == 1
    assert {line.pid for line in service.trace() if line.task == staying} == {began[staying].pid}


def test_a_reboot_interrupts_and_every_task_goes_on_after_it(service: Service) -> None:
    machine = service.machine
    service.start()
    tasks = [service.submit("long", "path=/tmp/go") for _ in range(5)]
    service.began(*tasks)
    machine.reboot()
    eventually(lambda: service.state == "active", "it is started with the machine")
    done = {task: once_each(service, task) for task in tasks}
    eventually(lambda: all(len(service.items(t)) > n for t, n in done.items()), "all go on")
    service.let_go("/tmp/go")
    for task in tasks:
        assert service.result(task) == "r1"
        assert once_each(service, task) and service.show(task)["attempt"] == 2
    held = "interrupted: the daemon stops"
    assert machine.journal("--unit", service.unit, "--boot=-1").count(held) == len(tasks)


def test_what_a_daemon_that_is_killed_in_a_stop_leaves_is_swept_and_goes_on_later(
    service: Service,
) -> None:
    machine = service.machine
    service.start()
    tasks = [service.submit("stay", "path=/tmp/go") for _ in range(2)]
    service.began(*tasks)
    assert len(service.processes()) >= 4, "the daemon, a zygote and two workers"
    stopping = machine.start("systemctl", "stop", service.unit)
    said = "stopping: 2 of 2 tasks have not left yet"
    eventually(
        lambda: machine.property(service.unit, "StatusText") == said, "it asks them to leave"
    )
    machine.kill(service.pid)
    assert stopping.wait(60) == 0
    assert machine.run("test", "-e", GROUP, check=False).returncode == 1, "its group is gone"
    assert service.processes() == []
    assert "ended what was left of the tasks" in machine.journal("--unit", service.unit)
    service.let_go("/tmp/go")
    machine.run("systemctl", "start", service.unit)
    assert [service.result(task) for task in tasks] == ["r1"] * 2
    journal = machine.journal("--unit", service.unit)
    assert journal.count("interrupted: the daemon was stopped before the task had left") == 2
    assert "crashed" not in journal


def test_the_watchdog_ends_a_daemon_that_hangs_and_its_tasks_live_through_it(
    service: Service,
) -> None:
    machine = service.machine
    service.drop_in("WatchdogSec=3")
    service.start()
    tasks = [service.submit("long", "path=/tmp/go") for _ in range(3)]
    began = service.began(*tasks)
    before = service.pid
    machine.kill(before, "STOP")
    eventually(lambda: machine.property(service.unit, "NRestarts") == "1", "a new daemon")
    eventually(lambda: service.state == "active", "it serves")
    journal = machine.journal("--unit", service.unit)
    assert "Watchdog timeout" in journal
    assert "Fatal Python error: Aborted" in journal and "loop.py" in journal, "and where it was"
    service.let_go("/tmp/go")
    assert [service.result(task) for task in tasks] == ["r1"] * 3
    for task in tasks:
        assert once_each(service, task) and service.show(task)["attempt"] == 1
        assert {line.pid for line in service.trace() if line.task == task} == {began[task].pid}
