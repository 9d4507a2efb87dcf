"""A service whose confirmed release is gone: the command that its journal names brings it back."""

from __future__ import annotations

import re
import shlex

import pytest
from support.machine import Machine
from support.service import Service
from support.waiting import eventually


@pytest.mark.parametrize("app", [None, "shop"])
def test_a_service_whose_release_is_gone_is_led_back_by_what_its_journal_says(
    machine: Machine, app: str | None
) -> None:
    service = Service(machine, app)
    service.install()
    service.configure()
    service.start()
    service.release("r2")
    machine.run("mv", f"{service.home}/releases/r1", f"{service.home}/away")
    service.link("r2")
    machine.run("systemctl", "restart", service.unit, check=False)

    def named() -> re.Match[str] | None:
        said = machine.journal("--unit", service.unit, "--priority", "err")
        return re.search("`(taskd confirm .*)`", said)

    command = eventually(named, "it names a command, as an error")[1]
    machine.run(*shlex.split(command))
    eventually(lambda: service.state == "active", "it is started again by itself")
    assert service.status()["revision"] == "r2"
    machine.run("systemctl", "restart", service.unit)
    assert service.status()["revision"] == "r2"
