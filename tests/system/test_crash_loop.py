"""A daemon that is killed at each of its starts is started again with a pause, and one that is
killed once without."""

from __future__ import annotations

from support.machine import Machine
from support.service import Service
from support.waiting import eventually

PAUSE = "the daemon was killed twice within ten seconds: a pause of two"


def test_a_daemon_that_crashes_at_each_start_is_not_started_without_a_pause(
    machine: Machine,
) -> None:
    service = Service(machine)
    service.install()
    service.configure()
    service.start()
    machine.kill(service.pid)
    eventually(lambda: service.state == "active", "it serves again")
    assert service.status()["revision"] == "r1"
    assert PAUSE not in machine.journal("--unit", service.unit)
    service.drop_in("ExecStart=", "ExecStart=/bin/sh -c 'kill -s SEGV $$$$'")
    machine.run("systemctl", "restart", service.unit, check=False)
    eventually(lambda: PAUSE in machine.journal("--unit", service.unit), "it pauses")
    starts = int(machine.property(service.unit, "NRestarts"))
    eventually(lambda: int(machine.property(service.unit, "NRestarts")) > starts, "it goes on")
