"""`taskd install` and `taskd uninstall` on a real machine, and the units that they write."""

from __future__ import annotations

import json

import pytest
from support.machine import Machine
from support.service import Service
from support.waiting import eventually

LISTING = """
find / -xdev \\( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp \
    -o -path /var/tmp -o -path /var/log/journal -o -path /root/.cache \
    -o -path /var/lib/systemd \\) -prune -o \\( "$@" \\) | sort
"""
"""Every file outside what systemd itself keeps."""

SAFE = 15
"""Tenths of `systemd-analyze security`'s exposure; 0 is the best, 100 the worst."""


def files(machine: Machine) -> set[str]:
    """The name of every file, link and directory."""
    return set(machine.says("sh", "-c", LISTING, "list", "-print").splitlines())


def contents(machine: Machine) -> set[str]:
    """The same with owner, mode, size and time of change."""
    form = "%p %u %g %m %s %T@ %C@ %l\\n"
    return set(machine.says("sh", "-c", LISTING, "list", "-printf", form).splitlines())


@pytest.fixture
def plain(machine: Machine) -> Service:
    """The system's one, not installed yet."""
    return Service(machine)


@pytest.fixture(params=[None, "shop"], ids=["plain", "named"])
def service(request: pytest.FixtureRequest, machine: Machine) -> Service:
    """The system's one, and one of several."""
    return Service(machine, request.param)


def test_a_dry_run_changes_nothing(plain: Service) -> None:
    before = contents(plain.machine)
    said = plain.install("--dry-run")
    assert contents(plain.machine) == before
    assert "would create /etc/systemd/system/taskd" in said
    assert f"would create {plain.config}" in said
    assert "would run systemd-sysusers" in said


def test_a_second_run_changes_nothing_and_says_so(service: Service) -> None:
    first = service.install()
    assert f"created  {service.config}" in first
    assert f"systemctl enable --now {service.unit}" in first
    before = contents(service.machine)
    second = service.install()
    assert contents(service.machine) == before
    assert f"nothing to change: {service.unit} is installed as it should be" in second
    assert "created" not in second and "ran" not in second.split()


def test_the_configuration_and_drop_ins_are_never_overwritten(plain: Service) -> None:
    plain.install()
    dropin = f"/etc/systemd/system/{plain.unit}.d/mine.conf"
    plain.machine.write(plain.config, "# mine\n")
    plain.machine.write(dropin, "[Service]\nUMask=0027\n")
    unit = plain.machine.property(plain.unit, "FragmentPath")
    plain.machine.write(unit, "# `taskd install` wrote this, and it is spoilt\n")
    said = plain.install()
    assert plain.machine.read(plain.config) == "# mine\n"
    assert plain.machine.read(dropin) == "[Service]\nUMask=0027\n"
    assert f"updated  {unit}" in said and f"kept     {plain.config} (it is yours)" in said
    assert plain.machine.property(plain.unit, "UMask") == "0027"
    assert plain.machine.property(plain.unit, "Type") == "notify"


def test_systemd_finds_nothing_wrong_with_the_units(service: Service) -> None:
    service.install()
    name = service.app
    units = [service.unit] + [
        f"taskd-{kind}@{name}.socket" if name else f"taskd-{kind}.socket"
        for kind in ("control", "submit")
    ]
    verified = service.machine.run("systemd-analyze", "verify", *units)
    assert verified.stdout + verified.stderr == ""
    assert "path=/usr/local/bin/taskd " in service.machine.property(service.unit, "ExecStart")
    assert service.machine.says("readlink", "/usr/local/bin/taskd") == "/opt/taskd/bin/taskd"
    secure = ["systemd-analyze", "security", "--no-pager", f"--threshold={SAFE}", service.unit]
    assert "Overall exposure level" in service.machine.says(*secure)


def test_each_socket_unit_has_its_own_mode_and_group(service: Service) -> None:
    service.install()
    machine, account = service.machine, service.account
    kinds = {"control": f"660 {account} {account}", "submit": f"660 {account} {account}-submit"}
    for kind, says in kinds.items():
        unit = f"taskd-{kind}@{service.app}.socket" if service.app else f"taskd-{kind}.socket"
        machine.run("systemctl", "start", unit)
        path = f"/run/{account}/{kind}.sock"
        assert machine.says("stat", "-c", "%a %U %G", path) == says
        machine.run("systemctl", "stop", unit)
        assert machine.run("test", "-e", path, check=False).returncode == 1
    assert service.state == "inactive"
    assert machine.says("stat", "-c", "%a %U", f"/run/{account}") == f"755 {account}"


def test_a_user_has_a_daemon_of_their_own_in_their_session(machine: Machine) -> None:
    machine.run("loginctl", "enable-linger", "alice")
    uid = machine.says("id", "-u", "alice")
    session = f"user@{uid}.service"
    eventually(lambda: machine.property(session, "ActiveState") == "active", "a session")

    def alice(*command: str) -> str:
        own = {"XDG_RUNTIME_DIR": f"/run/user/{uid}"}
        ran = machine.run(*command, user="alice", env=own)
        return ran.stdout + ran.stderr

    assert "systemctl --user enable --now taskd.service" in alice(
        "/opt/taskd/bin/taskd", "install", "--user"
    )
    assert alice("systemd-analyze", "--user", "verify", "taskd.service") == ""
    module = "from taskd import task\n@task\ndef double(of: int) -> int:\n    return 2 * of\n"
    alice("mkdir", "-p", "/home/alice/app/releases/r1")
    alice("ln", "-s", "releases/r1", "/home/alice/app/current")
    machine.write("/home/alice/app/releases/r1/app_tasks.py", module)
    alice("sed", "-i", "s/app.tasks/app_tasks/", "/home/alice/.config/taskd/taskd.toml")
    alice("systemctl", "--user", "enable", "--quiet", "--now", "taskd")
    task = alice("/home/alice/.local/bin/taskctl", "submit", "double", "of=21").strip()
    alice("/home/alice/.local/bin/taskctl", "wait", task)
    assert '"result": 42' in alice("/home/alice/.local/bin/taskctl", "show", task, "--json")
    manager = f"/sys/fs/cgroup/user.slice/user-{uid}.slice/{session}"
    checks = json.loads(alice("/home/alice/.local/bin/taskctl", "doctor", "--json"))["checks"]
    text = f"one for each worker, in {manager}/app.slice/taskd.service"
    assert {"name": "control groups", "ok": True, "text": text} in checks
    alice("sed", "-i", "s/^#pids_max/pids_max/", "/home/alice/.config/taskd/taskd.toml")
    for verb in ("reload", "restart"):  # what was made in the group is in nobody's way
        alice("systemctl", "--user", verb, "taskd")
        ran = alice("/home/alice/.local/bin/taskctl", "run", "--wait", "cat", "/proc/self/cgroup")
        log = alice("/home/alice/.local/bin/taskctl", "logs", ran.split()[0])
        assert "/app.slice/taskd.service/worker-" in log
    alice("systemctl", "--user", "stop", "taskd")
    assert machine.run("test", "-e", f"{manager}/app.slice/taskd.service", check=False).returncode


def test_an_uninstallation_with_purge_leaves_nothing_behind(service: Service) -> None:
    machine = service.machine
    before = files(machine)
    service.install()
    service.configure()
    service.start()
    service.result(service.submit("count", "to=2"))
    assert files(machine) != before
    named = ["--name", service.app] if service.app else []
    uninstall = ["/usr/local/bin/taskd", "uninstall", *named]

    refused = machine.run(*uninstall, "--purge", check=False)
    assert refused.returncode == 1 and f"{service.unit} is running" in refused.stderr
    assert service.state == "active"

    machine.run(*uninstall, "--stop", "--purge")
    gone = {path for path in files(machine) if not path.startswith(("/srv", "/etc/.pwd.lock"))}
    expected = {path for path in before if not path.startswith("/srv")}
    assert {path for path in gone - expected if path[-1] != "-"} == set()
    assert machine.run("id", service.account, check=False).returncode == 1
    assert machine.property(service.unit, "LoadState") == "not-found"
    again = machine.says("/opt/taskd/bin/taskd", "uninstall", *named, "--purge")
    assert again == f"nothing to remove: {service.unit} is not installed"


def test_tasks_outlive_an_uninstallation_without_purge(plain: Service) -> None:
    plain.install()
    plain.configure()
    plain.start()
    task = plain.submit("count", "to=2")
    plain.result(task)
    said = plain.machine.says("/opt/taskd/bin/taskd", "uninstall", "--stop")
    assert f"left, for another installation (--purge removes it): {plain.config}" in said
    assert plain.machine.property(plain.unit, "LoadState") == "not-found"
    plain.install()
    plain.start()
    assert plain.show(task)["state"] == "succeeded"


def test_one_of_two_apps_is_uninstalled_and_the_other_runs_on(machine: Machine) -> None:
    for name in ("shop", "blog"):
        service = Service(machine, name)
        service.install()
        service.configure()
        service.start()
    shop, blog = Service(machine, "shop"), Service(machine, "blog")
    pid = blog.pid
    machine.run("taskd", "uninstall", "--name", "shop", "--stop", "--purge")
    assert machine.property(shop.unit, "ActiveState") == "inactive"
    assert machine.run("ls", "/var/lib/taskd-shop", check=False).returncode != 0
    assert (blog.state, blog.pid) == ("active", pid)
    assert blog.result(blog.submit("count", "to=2")) == "r1"


@pytest.mark.parametrize(
    ("where", "why"),
    [("/root/venv", "which the service cannot see"), ("/opt/shut/venv", "is closed to")],
)
def test_a_taskd_that_the_service_could_not_start_is_not_installed(
    machine: Machine, where: str, why: str
) -> None:
    machine.run("mkdir", "-p", where)
    machine.run("chmod", "700", where.rpartition("/")[0])
    machine.run("cp", "-a", "/opt/taskd/.", where)
    before = contents(machine)
    ran = machine.run(f"{where}/bin/python", "-m", "taskd", "install", check=False)
    assert ran.returncode == 1 and why in ran.stderr and "/opt/taskd" in ran.stderr
    assert contents(machine) == before


def test_a_command_of_somebody_elses_is_not_replaced(machine: Machine) -> None:
    machine.write("/usr/local/bin/taskctl", "#!/bin/sh\n", "755")
    before = contents(machine)
    ran = machine.run("/opt/taskd/bin/taskd", "install", check=False)
    assert ran.returncode == 1 and "/usr/local/bin/taskctl is there" in ran.stderr
    assert contents(machine) == before
