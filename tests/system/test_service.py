"""taskd under systemd, through systemctl and taskctl alone."""

from __future__ import annotations

import json

import pytest
from support.machine import Machine
from support.service import Service
from support.waiting import eventually

MANY = """
from taskd import Client
with Client("/run/taskd/submit.sock") as client:
    print(*[{submit}.id for _ in range({number})])
"""
"""As a user's program does it."""

FAILS = """
@task
def fail_with(code: str) -> None:
    exec(code)
"""


@pytest.fixture
def service(machine: Machine) -> Service:
    """Installed, enabled and started, with the release r1; alice may submit."""
    service = Service(machine)
    service.install()
    service.configure()
    service.admit("alice")
    service.start()
    return service


def test_a_member_of_the_submit_group_submits_and_others_may_not(service: Service) -> None:
    task = service.submit("count", "to=3", user="alice")
    assert service.result(task, user="alice") == "r1"
    refused = service.machine.run("taskctl", "submit", "count", "to=3", user="mallory", check=False)
    assert refused.returncode in (1, 3) and refused.stdout == ""
    reloading = service.machine.run("taskctl", "reload", user="alice", check=False)
    assert reloading.returncode != 0
    assert int(service.machine.says("stat", "-c", "%u", "/run/taskd/control.sock")) == int(
        service.machine.says("id", "-u", "taskd")
    )


def test_a_good_deploy_is_a_reload_that_interrupts_nobody(service: Service) -> None:
    pid = service.pid
    moving = [service.submit("count_until", "release=r2", user="alice") for _ in range(4)]
    staying = [service.submit("wait", "path=/tmp/go", user="alice") for _ in range(3)]
    before = service.began(*moving, *staying)
    service.release("r2")
    service.link("r2")
    assert service.reload() == 0
    assert (service.pid, service.state) == (pid, "active")
    assert service.machine.property(service.unit, "NRestarts") == "0"
    assert service.status()["revision"] == "r2"
    service.let_go("/tmp/go")
    assert [service.result(task) for task in staying] == ["r1"] * 3
    assert [service.result(task) for task in moving] == ["r2"] * 4
    for task in moving:
        items = service.items(task)
        assert items == {str(number): 1 for number in range(len(items))}
    for task in staying:
        assert [line.pid for line in service.trace() if line.task == task] == [before[task].pid]


def test_a_bad_deploy_fails_the_reload_and_changes_nothing(service: Service) -> None:
    pid = service.pid
    running = service.submit("wait", "path=/tmp/go", user="alice")
    service.began(running)
    service.release("r2", "\nraise RuntimeError('this release is broken')\n")
    service.link("r2")
    for _ in range(2):
        assert service.reload() == 1
        assert (service.pid, service.state) == (pid, "active")
    assert service.machine.property(service.unit, "NRestarts") == "0"
    assert service.machine.property(service.unit, "Result") == "success"
    assert service.machine.failed_units() == ""
    assert "this release is broken" in service.machine.journal("--unit", service.unit)
    status = service.machine.says("systemctl", "status", "--full", "--lines=20", service.unit)
    assert "this release is broken" in status
    assert service.status()["revision"] == "r1"
    service.let_go("/tmp/go")
    assert service.result(running) == "r1"
    service.release("r3")
    service.link("r3")
    assert service.reload() == 0 and service.pid == pid
    assert service.result(service.submit("count", "to=2")) == "r3"


def test_a_killed_worker_is_its_own_tasks_matter(service: Service) -> None:
    pid = service.pid
    tasks = [service.submit("long", "path=/tmp/go", user="alice") for _ in range(4)]
    victim, *others = tasks
    began = service.began(*tasks)
    eventually(lambda: len(service.items(victim)) > 3, "it has something to go on from")
    service.machine.kill(began[victim].pid)
    eventually(lambda: service.began(victim)[victim].pid != began[victim].pid, "it goes on")
    service.let_go("/tmp/go")
    assert [service.result(task) for task in tasks] == ["r1"] * 4
    assert (service.pid, service.state) == (pid, "active")
    assert service.machine.property(service.unit, "NRestarts") == "0"
    assert service.show(victim)["attempt"] == 2
    items = service.items(victim)
    assert set(items) == {str(number) for number in range(len(items))}
    assert items.total() <= len(items) + 1, "the item in hand may be done twice"
    for task in others:
        assert service.show(task)["attempt"] == 1
        items = service.items(task)
        assert items == {str(number): 1 for number in range(len(items))}


def test_fifty_tasks_go_on_in_their_workers_while_the_daemon_is_killed_again_and_again(
    machine: Machine,
) -> None:
    service = Service(machine)
    service.install()
    service.configure()
    text = machine.read(service.config)
    machine.write(service.config, text.replace("\nconcurrency = 8\n", "\nconcurrency = 60\n"))
    service.admit("alice")
    service.start()
    submitting = MANY.format(submit='client.submit("long", {"path": "/tmp/go"})', number=50)
    tasks = machine.says("/opt/taskd/bin/python", "-c", submitting, user="alice").split()
    began = service.began(*tasks)
    for number in ("1", "2", "3"):
        service.machine.kill(service.pid)
        eventually(lambda: service.ctl("status", check=False), "an answer")
        assert machine.property(service.unit, "NRestarts") == number
    assert service.status()["states"]["running"] == 50
    service.let_go("/tmp/go")
    service.ctl("wait", *tasks, user="alice")
    done: dict[str, list[str]] = {task: [] for task in tasks}
    for line in service.trace():
        assert line.pid == began[line.task].pid, "in the process in which it began"
        done[line.task].append(line.item)
    for items in done.values():
        assert items == [str(n) for n in range(len(items))], "each item once, and none left out"
    shown = [json.loads(line) for line in service.ctl("list", "--json").splitlines()]
    assert [(task["state"], task["attempt"]) for task in shown] == [("succeeded", 1)] * 50


PAUSES = """
for procs in "$1"/cgroup.procs "$1"/.control/cgroup.procs; do
    while read -r pid; do cat "/proc/$pid/comm"; done <"$procs"
done
"""


def pauses(service: Service) -> bool:
    """Whether what runs after the daemon's end is waiting."""
    group = f"/sys/fs/cgroup/system.slice/{service.unit}"
    found = service.machine.run("sh", "-c", PAUSES, "pauses", group, check=False)
    return "sleep" in found.stdout.split()


def test_a_daemon_that_cannot_start_tries_on_and_pauses_between(machine: Machine) -> None:
    service = Service(machine)
    service.install()
    service.configure()
    good = machine.read(service.config)
    machine.write(service.config, "[app]\n")
    started = machine.run("systemctl", "enable", "--now", service.unit, check=False)
    assert started.returncode == 1
    assert "app.release is missing" in machine.journal("--unit", service.unit)
    eventually(lambda: int(machine.property(service.unit, "NRestarts")) >= 2, "a second new try")
    eventually(lambda: pauses(service), "a pause")
    machine.write(service.config, good)
    eventually(lambda: service.state == "active", "a start with the configuration mended")


def test_a_stop_in_that_pause_leaves_no_task_running(service: Service) -> None:
    machine = service.machine
    task = service.submit("stay", "path=/tmp/go")
    service.began(task)
    good = machine.read(service.config)
    machine.write(service.config, "[app]\n")
    machine.kill(service.pid)
    eventually(lambda: pauses(service), "a pause")
    assert service.processes(), "the task goes on without a daemon"
    machine.run("systemctl", "stop", service.unit)
    eventually(lambda: service.processes() == [], "its processes are gone")
    assert "ended what was left of the tasks" in machine.journal("--unit", service.unit)
    machine.write(service.config, good)
    service.let_go("/tmp/go")
    machine.run("systemctl", "start", service.unit)
    assert service.result(task) == "r1" and service.show(task)["attempt"] == 2


def test_a_daemon_that_hangs_and_is_killed_in_a_reload_is_started_again(service: Service) -> None:
    machine = service.machine
    service.drop_in("WatchdogSec=0")  # which would end the reload as well, a minute later
    machine.run("systemctl", "restart", service.unit)
    before = service.pid
    machine.kill(before, "STOP")
    reloading = machine.start("systemctl", "reload", service.unit)
    eventually(lambda: machine.property(service.unit, "ControlPID") != "0", "the reload has begun")
    machine.kill(before)
    eventually(lambda: service.pid not in (0, before) and service.state == "active")
    assert reloading.wait(60) == 1
    assert service.result(service.submit("count", "to=2")) == "r1"


def test_a_stop_in_a_reload_leaves_the_unit_as_a_stop_does(service: Service) -> None:
    """systemd ends the reload's command as well, which is no failure of the unit."""
    machine = service.machine
    task = service.submit("long", "path=/tmp/go")
    service.began(task)
    service.release("r2", "\nopen('/tmp/imported', 'w').close()\ntime.sleep(600)\n")
    service.link("r2")
    reloading = machine.start("systemctl", "reload", service.unit)
    eventually(
        lambda: (
            machine.run("test", "-e", f"{service.temporary}/imported", check=False).returncode == 0
        )
    )
    machine.run("systemctl", "stop", service.unit)
    assert reloading.wait(60) == 1
    assert machine.property(service.unit, "ActiveState") == "inactive"
    assert machine.property(service.unit, "Result") == "success"
    eventually(lambda: service.processes() == [], "its processes are gone")
    service.link("r1")
    machine.run("systemctl", "start", service.unit)
    service.let_go("/tmp/go")
    assert service.result(task) == "r1"


def test_tasks_use_the_network_and_nothing_that_the_sandbox_forbids(service: Service) -> None:
    assert service.result(service.submit("dial")) == "hello"
    for code, says in {
        "open('/etc/passwd').read()": "allowed",
        "open('/var/tmp/mine', 'w').write('x')": "allowed",
        "__import__('tempfile').TemporaryFile()": "allowed",
        "open(os.path.expanduser('~/.cache'), 'w')": "allowed",
        "__import__('multiprocessing').Semaphore()": "allowed",
        "open('/srv/app/mine', 'w')": "OSError",
        "open('/etc/mine', 'w')": "OSError",
        "os.listdir('/home/alice')": "PermissionError",
        "os.nice(5)": "PermissionError",
        "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)": "OSError",
    }.items():
        assert service.result(service.submit("try_to", f"code={code}")) == says, code


def test_a_task_that_fails_by_the_sandbox_is_shown_with_what_changes_it(service: Service) -> None:
    service.release("r2", FAILS)
    service.link("r2")
    assert service.reload() == 0
    for code, says in {
        "open('/srv/app/mine', 'w')": "tasks may not write to /srv/app/mine: ReadWritePaths=",
        "os.listdir('/home/alice')": "it hides /home: ProtectHome=",
        "os.chown('/tmp', -1, os.getgid())": "maybe one of the calls that SystemCallFilter=",
    }.items():
        task = service.submit("fail_with", f"code={code}")
        service.ctl("wait", task, check=False)
        shown = service.ctl("show", task)
        assert f"(the service's sandbox: {says}" in shown, shown
        assert "/more.conf has the line: " in shown, shown
    task = service.submit("fail_with", "code=open('/etc/shadow')")
    service.ctl("wait", task, check=False)
    assert "Permission denied" in service.ctl("show", task)
    assert "sandbox" not in service.ctl("show", task), "an ordinary user may not either"


def test_a_program_is_not_queued_for_where_the_service_cannot_go(service: Service) -> None:
    machine = service.machine
    taskctl = 'cd "$0" && exec taskctl run "$@"'
    machine.run("mkdir", "/tmp/mine")
    missing = "No such file or directory"  # in the service's own /tmp
    for where, why in {"/root": "Permission denied", "/tmp/mine": missing}.items():
        refused = machine.run("sh", "-c", taskctl, where, "--", "true", check=False)
        assert refused.returncode == 1
        assert f"the service cannot enter '{where}' ({why})" in refused.stderr
        assert "hides home directories" in refused.stderr and "--cwd DIR" in refused.stderr
    assert service.ctl("list") == ""
    ran = machine.says("sh", "-c", taskctl, "/root", "--cwd", "/srv/app", "--wait", "--", "pwd")
    task, shown = ran.splitlines()
    assert (service.ctl("logs", task), shown) == ("/srv/app", "/srv/app")


def test_a_drop_in_gives_tasks_what_the_sandbox_forbids(service: Service) -> None:
    where = "from taskd import paths; print(paths.MORE)"
    more = service.machine.read(service.machine.says("/opt/taskd/bin/python", "-c", where))
    lines = ("ReadWritePaths=/srv/app/data", "SystemCallFilter=@resources",
             "SystemCallFilter=@chown")  # fmt: skip
    for line in lines:
        assert more.count(f"#{line}\n") == 1
        more = more.replace(f"#{line}", line)
    service.machine.run("install", "-d", "-o", "taskd", "/srv/app/data")
    service.machine.write(f"/etc/systemd/system/{service.unit}.d/more.conf", more)
    service.machine.run("systemctl", "daemon-reload")
    service.machine.run("systemctl", "restart", service.unit)
    own = "os.chown('/srv/app/data/mine', -1, os.getgid())"
    for code in ("open('/srv/app/data/mine', 'w')", "os.nice(5)", own):
        assert service.result(service.submit("try_to", f"code={code}")) == "allowed"


def test_what_tasks_keep_in_tmp_and_in_memory_outlives_a_killed_daemon(service: Service) -> None:
    code = "open('/tmp/kept', 'w').write('x'); open('/dev/shm/kept', 'w').write('x')"
    assert service.result(service.submit("try_to", f"code={code}")) == "allowed"
    service.machine.kill(service.pid)
    read = "open('/tmp/kept').read(); open('/dev/shm/kept').read()"
    task = eventually(lambda: service.ctl("submit", "try_to", f"code={read}", check=False), "up")
    assert service.result(task) == "allowed"


def test_two_instances_side_by_side_do_not_see_each_other(machine: Machine) -> None:
    shop, blog = Service(machine, "shop"), Service(machine, "blog")
    for service in (shop, blog):
        service.install()
        service.configure()
        service.start()
    shop.admit("alice")
    task = shop.submit("count", "to=3", user="alice")
    assert shop.result(task, user="alice") == "r1"
    refused = ["taskctl", "--socket", "/run/taskd-blog", "submit", "count", "to=3"]
    assert machine.run(*refused, user="alice", check=False).returncode != 0
    assert blog.trace() == []
    before = blog.pid
    shop.release("r2")
    shop.link("r2")
    assert shop.reload() == 0
    assert (shop.status()["revision"], blog.status()["revision"]) == ("r2", "r1")
    assert blog.pid == before
    assert blog.result(blog.submit("count", "to=2")) == "r1"
