"""Sockets that systemd holds: the first submission starts the daemon, none meets a closed door."""

from __future__ import annotations

import json

import pytest
from support.machine import Machine
from support.service import Service
from support.waiting import eventually

SOCKETS = ("taskd-control.socket", "taskd-submit.socket")

SUBMITTER = """
import os, sys
from taskd import Client
with Client("/run/taskd/submit.sock", timeout=60) as client:
    n = 0
    while not os.path.exists("/home/alice/enough"):
        task = client.submit("count", {"to": 1, "pause": 0}, key=f"{sys.argv[1]}-{n}")
        print(task.id, task.result(60), flush=True)
        n += 1
"""


@pytest.fixture
def service(machine: Machine) -> Service:
    """Installed and not started; its sockets are."""
    service = Service(machine)
    service.install()
    service.configure()
    service.admit("alice")
    machine.run("systemctl", "start", *SOCKETS)
    return service


def test_the_first_submission_starts_the_daemon_which_stops_for_good_with_its_sockets(
    service: Service,
) -> None:
    machine = service.machine
    assert service.state == "inactive"
    task = service.submit("count", "to=2", user="alice")
    assert service.state == "active" and service.result(task, user="alice") == "r1"
    checks = json.loads(service.ctl("doctor", "--json"))["checks"]
    held = {check["name"]: check["ok"] for check in checks}
    assert held["sockets"] and held["watchdog"] and held["stops"]
    machine.run("systemctl", "stop", service.unit)
    assert service.submit("count", "to=2", user="alice") and service.state == "active"
    machine.run("systemctl", "stop", SOCKETS[1])
    submitting = ("taskctl", "submit", "count", "to=2")
    assert machine.run(*submitting, user="alice", check=False).returncode == 3
    assert service.status()["revision"] == "r1", "who may do all still can"
    machine.run("systemctl", "restart", service.unit)
    assert service.result(service.submit("count", "to=2", user="alice")) == "r1"
    machine.run("systemctl", "stop", service.unit, *SOCKETS)
    assert machine.run(*submitting, user="alice", check=False).returncode == 3
    assert service.state == "inactive"
    machine.run("systemctl", "enable", "--now", service.unit)
    for unit in SOCKETS:
        assert machine.property(unit, "ActiveState") == "active"
        assert machine.says("systemctl", "is-enabled", unit) == "enabled"


def test_submissions_while_the_service_restarts_and_is_killed_wait_and_succeed(
    service: Service,
) -> None:
    machine = service.machine
    submitters = [
        machine.start("/opt/taskd/bin/python", "-c", SUBMITTER, str(n), user="alice")
        for n in range(4)
    ]
    eventually(lambda: service.state == "active", "the first of them starts it")
    for _ in range(2):
        before = service.pid
        machine.run("systemctl", "restart", service.unit)
        assert service.pid not in (0, before)
        before = service.pid
        machine.kill(before)
        eventually(lambda b=before: service.pid not in (0, b) and service.state == "active")
        assert service.reload() == 0
    machine.write("/home/alice/enough", "")
    said = [each.communicate(timeout=120)[0] for each in submitters]
    assert [each.returncode for each in submitters] == [0] * 4, said
    lines = [line.split() for text in said for line in text.splitlines()]
    assert {result for _, result in lines} == {"r1"}
    assert len({task for task, _ in lines}) == len(lines), "each submission is a task of its own"
    assert service.status()["states"]["succeeded"] == len(lines), "and no other was made"


def test_who_waits_for_a_daemon_that_cannot_start_is_answered_once_it_can(
    service: Service,
) -> None:
    machine = service.machine
    good = machine.read(service.config)
    machine.write(service.config, "[app]\n")
    waiting = machine.start("taskctl", "submit", "--wait", "count", "to=2", user="alice")
    eventually(lambda: machine.property(service.unit, "NRestarts") not in ("0", ""), "it fails")
    assert machine.property("taskd-submit.socket", "ActiveState") == "active"
    machine.write(service.config, good)
    said = waiting.communicate(timeout=60)[0]
    assert waiting.returncode == 0, said
