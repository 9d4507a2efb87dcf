"""Tasks that kill their zygote or their master, and tasks that cannot speak while a deploy runs."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator

import pytest
from support import processes
from support.beside import Beside
from support.daemon import Daemon
from support.waiting import eventually

POISON = r"""
import re

holding = ctypes.PyDLL(None)  # its functions keep the interpreter's lock

@task
def kills_its_parent(times: int) -> int:
    mark("begun")
    if attempt() <= times:
        os.kill(os.getppid(), signal.SIGKILL)
    return attempt()

@task
def kills_its_parent_and_itself(ctx) -> int:
    mark("begun")
    ctx.step("first", mark, "first")
    if attempt() == 1:
        os.kill(os.getppid(), signal.SIGKILL)
        os._exit(5)
    return attempt()

@task
def kills_the_master(ctx, pid: int) -> str:
    ctx.step("kill", kill_once, pid)
    mark("killed")
    for n in ctx.each("items", range(3)):
        mark(n)
    return "done"

def kill_once(pid):
    os.kill(pid, signal.SIGKILL)

@task
def kills_the_master_and_itself(pid: int) -> str:
    mark("begun")
    if attempt() == 1:
        os.kill(pid, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"

@task
def stops_the_master(pid: int) -> str:
    os.kill(pid, signal.SIGSTOP)
    mark("stopped")
    gate("continued")
    return "done"

@task(on_deploy="checkpoint")
def holds_the_lock(ctx, how: str) -> str:
    mark("begun")
    if how in ("sleep", "sleep, then hear"):
        while not os.path.exists(os.path.join(os.environ["TASKD_TEST_GATES"], "let-go")):
            holding.usleep(300_000)
    elif how == "regex":
        mark(bool(re.match(r"(a+)+$", "a" * 25 + "b")))
    elif how == "pow":
        mark(len(hex(pow(7, 3_000_000))) > 0)
    # What was said while nothing could be heard is heard soon after, at a time that is nobody's.
    while how == "sleep, then hear" and attempt() == 1:
        ctx.checkpoint()
        time.sleep(0.01)
    ctx.checkpoint()
    mark("let-go")
    return os.environ["TASKD_REVISION"]

holds_the_lock_to_the_end = task(name="holds_the_lock_to_the_end")(holds_the_lock.fn)

@task
def leaves_one_that_waits_for_a_disk(place: str) -> int:
    mark("begun")
    if attempt() == 1:
        if os.fork() == 0:
            os.setsid()
            stray()
            with open(os.path.join(place, "file"), "w") as file:
                file.write("x")
            os._exit(0)
        gate("never")
    return attempt()

@task
def waits_for_a_disk(place: str) -> str:
    mark("begun")
    with open(os.path.join(place, "file"), "w") as file:
        file.write("x")
    return "written"
"""


# ── the zygote ───────────────────────────────────────────────────────────────────────────────


def test_a_task_that_kills_its_zygote_ends_as_it_would_and_so_do_the_others(
    daemon: Daemon, beside: Beside
) -> None:
    before = daemon.zygotes()["r1"]
    task = daemon.client().submit("kills_its_parent", {"times": 1})
    assert task.result(30) == 1
    eventually(lambda: daemon.zygotes().get("r1") not in (None, before), "there is another zygote")


def test_a_task_that_kills_its_zygote_and_itself_is_judged_by_what_it_saved(
    daemon: Daemon, beside: Beside
) -> None:
    task = daemon.client().submit("kills_its_parent_and_itself")
    assert task.result(30) == 2
    assert daemon.items(task.id).count("first") == 1


# ── the master ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["kills_the_master", "kills_the_master_and_itself"])
def test_a_task_that_kills_the_master_is_judged_by_the_next_one(
    daemon: Daemon, beside: Beside, name: str
) -> None:
    task = daemon.client().submit(name, {"pid": daemon.pid})
    assert daemon.process is not None
    assert daemon.process.wait(30) == -signal.SIGKILL
    daemon.start()
    beside.has_another_master()
    if name == "kills_the_master":  # its step was not kept if the step's own code was cut off
        assert task.result(30) == "done"
        assert daemon.items(task.id) == ["killed", "0", "1", "2"]
    else:
        assert task.result(30) == "done"
        assert daemon.items(task.id) == ["begun", "begun"]


def test_a_task_that_stops_the_master_goes_on_and_is_heard_when_that_is_continued(
    daemon: Daemon, beside: Beside
) -> None:
    task = daemon.client().submit("stops_the_master", {"pid": daemon.pid})
    daemon.reached(task.id, "stopped")
    daemon.open_gate("continued")
    daemon.open_gate("neighbour")
    eventually(lambda: "2" in daemon.items(1), "the neighbour goes on without a master")
    daemon.kill(signal.SIGCONT)
    assert task.result(30) == "done"


# ── the interpreter's lock ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("how", ["regex", "pow"])
def test_a_task_that_computes_in_c_is_waited_for(daemon: Daemon, beside: Beside, how: str) -> None:
    task = daemon.client().submit("holds_the_lock", {"how": how})
    assert task.result(60) == "r1"
    assert task.status().attempt == 1


def test_a_deploy_while_a_task_cannot_speak_goes_through_and_the_task_ends_once(
    daemon: Daemon, beside: Beside
) -> None:
    client = daemon.client()
    task = client.submit("holds_the_lock", {"how": "sleep, then hear"})
    worker = daemon.reached(task.id, "begun").pid
    other = client.submit("holds_the_lock_to_the_end", {"how": "sleep"})
    daemon.reached(other.id, "begun")
    for name in ("r2", "r1", "r2"):
        daemon.reload(name)
        assert client.submit("plain").result(30) > 0
    assert processes.is_alive(worker)
    assert (task.status().state, task.status().attempt) == ("running", 1)
    daemon.open_gate("let-go")
    assert task.result(30) == "r2", "asked to move meanwhile, it does so once it can"
    assert daemon.items(task.id) == ["begun", "begun", "let-go"]
    assert other.result(30) == "r1", "on_deploy is finish: it stays where it is"
    assert daemon.items(other.id) == ["begun", "let-go"]


def test_a_master_that_dies_while_a_task_cannot_speak_is_found_again(
    daemon: Daemon, beside: Beside
) -> None:
    task = daemon.client().submit("holds_the_lock", {"how": "sleep"})
    daemon.reached(task.id, "begun")
    daemon.kill()
    daemon.start()
    beside.has_another_master()
    assert task.status().state == "running"
    daemon.open_gate("let-go")
    assert task.result(30) == "r1"
    assert daemon.items(task.id) == ["begun", "let-go"]


# ── the kernel ───────────────────────────────────────────────────────────────────────────────


class Frozen:
    """A small file system whose writers wait in the kernel, where no signal reaches them."""

    def __init__(self, root: str) -> None:
        self.path = os.path.join(root, "mounted")
        image = os.path.join(root, "image")
        os.mkdir(self.path)
        with open(image, "wb") as file:
            file.truncate(8 << 20)
        run("mkfs.ext4", "-q", image)
        run("mount", "-o", "loop", image, self.path)
        os.chmod(self.path, 0o777)

    def freeze(self) -> None:
        run("fsfreeze", "-f", self.path)

    def thaw(self) -> None:
        run("fsfreeze", "-u", self.path)


def run(*command: str) -> None:
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode:
        pytest.skip(f"{' '.join(command)}: {ran.stderr.strip()}")


@pytest.fixture
def frozen() -> Iterator[Frozen]:
    with tempfile.TemporaryDirectory(prefix="taskd-frozen-") as root:
        try:
            made = Frozen(root)
            made.freeze()
            yield made
        finally:
            path = os.path.join(root, "mounted")
            subprocess.run(["fsfreeze", "-u", path], capture_output=True)
            subprocess.run(["umount", "-l", path], capture_output=True)


def sleeps_in_the_kernel(pid: int) -> bool:
    found = processes.state_and_parent(pid)
    return found is not None and found[0] == "D"


def test_a_task_that_not_even_the_kernel_can_kill_is_cancelled_once_it_is_dead(
    daemon: Daemon, beside: Beside, frozen: Frozen
) -> None:
    client = daemon.client()
    task = client.submit("waits_for_a_disk", {"place": frozen.path})
    worker = daemon.reached(task.id, "begun").pid

    eventually(lambda: sleeps_in_the_kernel(worker), "it waits in the kernel")
    task.cancel()
    shown = "did not leave in 0.3 s, and was killed; its process is not dead yet"
    eventually(lambda: task.status().reason == shown, "it has been killed, in vain")
    assert task.status().state == "running", "nobody says that it is over before it is"
    assert client.submit("plain").result(30) > 0
    frozen.thaw()
    assert task.wait(30).state == "cancelled"
    assert not processes.is_alive(worker)


@pytest.mark.parametrize("and_the_zygote", [False, True])
def test_a_leftover_that_cannot_be_killed_keeps_its_own_task_waiting_and_nobody_else(
    daemon: Daemon, beside: Beside, frozen: Frozen, and_the_zygote: bool
) -> None:
    client = daemon.client()
    task = client.submit("leaves_one_that_waits_for_a_disk", {"place": frozen.path})
    worker = daemon.reached(task.id, "begun").pid
    left = eventually(lambda: [e.pid for e in daemon.effects(task.id) if "stray" in e.item])[0]
    eventually(lambda: sleeps_in_the_kernel(left), "it waits in the kernel")
    if and_the_zygote:
        os.kill(daemon.zygotes()["r1"], signal.SIGKILL)
    os.kill(worker, signal.SIGKILL)
    eventually(lambda: not processes.is_alive(worker), "the worker is dead")
    for _ in range(3):
        assert client.submit("plain").result(30) > 0
    assert (task.status().state, task.status().attempt) == ("running", 1)
    frozen.thaw()
    assert task.result(30) == 2
    assert not processes.is_alive(left)
