"""Deploys under load, and a newer taskd, through `systemctl reload`."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from support import wheels
from support.machine import Machine
from support.service import Service
from support.waiting import eventually

NEWER = "0.2.1"

LOAD = """
import os
from taskd import Client
with Client("/run/taskd/submit.sock") as client:
    tasks = []
    while not os.path.exists("/home/alice/enough"):
        tasks.append(client.submit("count", {"to": 2, "pause": 0.01}))
        if len(tasks) % 5 == 0:
            tasks[-1].result(60)
        if len(tasks) == 20:
            open("/home/alice/begun", "w").close()
    print(len(tasks), {task.result(60) for task in tasks} <= {"r1", "r2", "r3"})
    print(client.connections_lost)
"""
"""Submits one task after the other, over one connection."""


@pytest.fixture
def service(machine: Machine) -> Service:
    service = Service(machine)
    service.install()
    service.configure()
    service.admit("alice")
    service.start()
    return service


def test_good_and_bad_releases_are_deployed_under_load_and_nobody_notices(
    service: Service,
) -> None:
    machine, pid = service.machine, service.pid
    load = machine.start("/opt/taskd/bin/python", "-c", LOAD, user="alice")
    running = [service.submit("long", "path=/tmp/go") for _ in range(3)]
    service.began(*running)
    eventually(lambda: machine.run("test", "-e", "/home/alice/begun", check=False).returncode == 0)
    for name in ("r2", "r3"):
        service.release(f"not-{name}", "\nimport no_such_module\n")
        service.link(f"not-{name}")
        assert service.reload() == 1
        assert (service.pid, service.state) == (pid, "active")
        assert service.status()["revision"] != f"not-{name}"
        service.release(name)
        service.link(name)
        assert service.reload() == 0
        assert (service.pid, service.state) == (pid, "active")
        assert service.status()["revision"] == name
    assert machine.property(service.unit, "NRestarts") == "0"
    machine.write("/home/alice/enough", "")
    said = load.communicate(timeout=120)[0].split()
    assert int(said[0]) > 20 and said[1:] == ["True", "0"], "all done, over the one connection"
    service.let_go("/tmp/go")
    for task in running:
        assert service.result(task) == "r1" and service.show(task)["attempt"] == 1
        items = [line.item for line in service.trace() if line.task == task]
        assert items == [str(n) for n in range(len(items))]


def test_a_newer_taskd_is_taken_up_by_a_reload_and_interrupts_nobody(
    service: Service, tmp_path: Path
) -> None:
    machine, pid = service.machine, service.pid
    tasks = [service.submit("long", "path=/tmp/go") for _ in range(3)]
    began = service.began(*tasks)
    wheel = wheels.build(tmp_path, NEWER)
    machine.run("mkdir", "/newer")
    put = f"base64 -d >/newer/{wheel.name}"
    machine.run("sh", "-c", put, input=base64.b64encode(wheel.read_bytes()).decode())
    pip = ("/opt/taskd/bin/pip", "install", "-q", "--no-index", "--find-links", "/wheels")
    machine.run(*pip, f"/newer/{wheel.name}")
    assert "nothing to change" in service.install()
    assert not service.ctl("status").startswith(f"taskd {NEWER}")
    assert service.reload() == 0
    assert service.ctl("status").startswith(f"taskd {NEWER}, pid {pid}")
    assert (service.pid, service.state) == (pid, "active")
    fresh = service.submit("count", "to=2")
    assert service.result(fresh) == "r1"
    service.let_go("/tmp/go")
    for task in tasks:
        assert service.result(task) == "r1" and service.show(task)["attempt"] == 1
        lines = [line for line in service.trace() if line.task == task]
        assert {line.pid for line in lines} == {began[task].pid}
        assert [line.item for line in lines] == [str(n) for n in range(len(lines))]
