"""contrib/deploy, run as root on a machine whose wheels stand in for the package index."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.machine import Machine
from support.service import APP, Service

SCRIPT = Path(__file__).parents[2] / "contrib" / "deploy"
OFFLINE = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/wheels"}


@pytest.fixture
def service(machine: Machine) -> Service:
    """Installed, with a first release made by the script, and started."""
    service = Service(machine)
    service.install()
    text = machine.read(service.config)
    machine.write(service.config, text.replace("app.tasks", "app_tasks"))
    machine.write("/usr/local/bin/deploy", SCRIPT.read_text(), "755")
    source(machine, "first")
    assert "systemctl enable --now taskd" in machine.run("deploy", "/root/app", env=OFFLINE).stdout
    service.start()
    return service


def source(machine: Machine, name: str, extra: str = "", needs: str = "") -> None:
    """What the checkout is to be; its tasks return ``name``."""
    machine.write("/root/app/app_tasks.py", APP.format(name=name) + extra)
    machine.write("/root/app/requirements.txt", f"taskd-supervisor\n{needs}")


def test_the_history_of_a_checkout_is_not_in_the_release(service: Service) -> None:
    machine = service.machine
    for name in (".git/config", "lib/.git", "lib/code", ".env", "..odd", "a b"):
        machine.write(f"/root/app/{name}", "x")
    machine.run("ln", "-s", "a b", "/root/app/link")
    machine.run("ln", "-s", "nowhere", "/root/app/dangling")
    machine.run("deploy", "/root/app", env=OFFLINE)
    find = ("find", "/srv/app/current/", "-path", "*/.venv", "-prune", "-o", "-printf", "%P %l\n")
    found = {line.rstrip() for line in machine.says(*find).splitlines()} - {""}
    assert {name for name in found if "__pycache__" not in name} == {
        "app_tasks.py", "requirements.txt", "lib", "lib/code", ".env", "..odd", "a b", "link a b",
        "dangling nowhere",
    }  # fmt: skip


def releases(machine: Machine) -> set[str]:
    return set(machine.says("ls", "/srv/app/releases").split())


def test_it_deploys_and_rolls_back_and_leaves_no_rubbish(service: Service) -> None:
    machine, pid = service.machine, service.pid
    (first,) = releases(machine)
    running = service.submit("wait", "path=/tmp/go")
    service.began(running)
    source(machine, "second")
    machine.run("deploy", "/root/app", env=OFFLINE)
    assert service.result(service.submit("count", "to=1")) == "second"
    before, current = releases(machine), machine.says("readlink", "/srv/app/current")

    source(machine, "third", extra="\nraise RuntimeError('no third')\n")
    refused = machine.run("deploy", "/root/app", env=OFFLINE, check=False)
    assert refused.returncode == 1 and "no third" in refused.stderr

    source(machine, "fourth", needs="no-such-package\n")
    unbuilt = machine.run("deploy", "/root/app", env=OFFLINE, check=False)
    assert unbuilt.returncode == 1 and "no-such-package" in unbuilt.stderr

    assert releases(machine) == before
    assert machine.says("readlink", "/srv/app/current") == current
    assert (service.pid, service.state) == (pid, "active")
    assert service.result(service.submit("count", "to=1")) == "second"

    source(machine, "fifth")
    machine.run("deploy", "/root/app", env=OFFLINE | {"KEEP": "1"})
    assert service.result(service.submit("count", "to=1")) == "fifth"
    (fifth,) = releases(machine) - before
    assert releases(machine) == {first, fifth}, "one that is in use is never removed"
    service.let_go("/tmp/go")
    assert service.result(running) == "first"
