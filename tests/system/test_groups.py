"""Control groups and the journal, as a booted systemd has them."""

from __future__ import annotations

import json

import pytest
from support.machine import Machine
from support.service import Service
from support.waiting import eventually

GROUP = "/sys/fs/cgroup/system.slice/taskd.service"


@pytest.fixture
def service(machine: Machine) -> Service:
    service = Service(machine)
    service.install()
    service.configure()
    service.start()
    return service


def group_of(service: Service, pid: int) -> str:
    return service.machine.read(f"/proc/{pid}/cgroup").strip().rpartition(":")[2]


def test_each_task_has_a_control_group_below_the_units_also_over_a_crash(service: Service) -> None:
    checks = json.loads(service.ctl("doctor", "--json"))["checks"]
    groups = {"name": "control groups", "ok": True, "text": f"one for each worker, in {GROUP}"}
    assert groups in checks
    task = service.submit("wait", "path=/tmp/go")
    worker = service.began(task)[task].pid
    group = group_of(service, worker)
    assert group.startswith("/system.slice/taskd.service/worker-")
    before = service.pid
    service.machine.kill(before)
    eventually(lambda: service.pid not in (0, before) and service.state == "active")
    assert group_of(service, worker) == group
    service.let_go("/tmp/go")
    assert service.result(task) == "r1"
    service.machine.run("systemctl", "stop", service.unit)
    assert service.machine.run("test", "-e", GROUP, check=False).returncode == 1


def test_the_journal_can_be_asked_for_a_task(service: Service) -> None:
    first, second = (service.submit("count", "to=1") for _ in range(2))
    service.result(first)
    service.result(second)

    def entries() -> list[dict[str, str]]:
        lines = service.machine.journal(f"TASK={first}", "--output=json").splitlines()
        found = [json.loads(line) for line in lines]
        return found if len(found) > 1 else []

    found = eventually(entries, "its end, which may be known before it is logged")
    assert [entry["MESSAGE"].split()[0] for entry in found] == ["running", "succeeded"]
    running = found[0]
    assert running["REVISION"] == "r1" and running["ATTEMPT"] == "1"
    assert len(running["WORKER"]) == 32 and running["PRIORITY"] == "6"
    assert running["SYSLOG_IDENTIFIER"] == "taskd"
    assert running["_SYSTEMD_UNIT"] == "taskd.service"


MANY = """
from taskd import Client
with Client("/run/taskd/control.sock") as client:
    tasks = [client.submit("count", {"to": 1, "pause": 0}) for _ in range(400)]
    print([task.result(60) for task in tasks].count("r1"))
"""


def test_a_journal_that_hangs_holds_up_nobody_and_is_told_what_it_missed(
    service: Service,
) -> None:
    machine = service.machine
    journald = int(machine.property("systemd-journald", "MainPID"))
    machine.kill(journald, "STOP")
    try:  # two lines a task: more than the journal's socket holds
        assert machine.says("/opt/taskd/bin/python", "-c", MANY) == "400"
    finally:
        machine.kill(journald, "CONT")
    lost = "lines of this log were lost, since its reader hung"

    def is_told() -> bool:
        """With the next line that the journal takes."""
        service.result(service.submit("count", "to=1"))
        return lost in machine.journal("--unit", service.unit)

    eventually(is_told)
