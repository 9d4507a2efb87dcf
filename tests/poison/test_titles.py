"""What ps shows of the master, zygotes and workers: who they are and what they do, and no
arguments."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest
from support.beside import APP
from support.daemon import Daemon
from support.waiting import eventually

from taskd.errors import DeployRefused

POISON = """
@task
def import_orders(password: str) -> str:
    mark("begun")
    gate("end")
    return " ".join(sys.argv[1:]).strip()
"""


def title(pid: int) -> tuple[str, str]:
    with (
        open(f"/proc/{pid}/cmdline", encoding="ascii") as line,
        open(f"/proc/{pid}/comm", encoding="ascii") as name,
    ):
        return line.read().rstrip("\0"), name.read().rstrip()


@pytest.mark.parametrize("fork", ["auto", "never"])
def test_zygotes_and_workers_say_what_they_are_and_do(
    new_daemon: Callable[..., Daemon], fork: str
) -> None:
    daemon = new_daemon(app={"fork": fork})
    daemon.release("r42", APP + POISON)
    daemon.point("r42")
    daemon.start()
    task = daemon.client().submit("import_orders", {"password": "letmein"})
    pid = daemon.reached(task.id, "begun").pid
    doing = f"taskd: worker r42 task {task.id} import_orders"
    assert title(pid) == (doing, "taskd: worker")
    assert title(daemon.zygotes()["r42"]) == ("taskd: zygote r42", "taskd: zygote")
    daemon.open_gate("end")
    assert task.result(30) == "", "the app does not see what made room for the title"

    def used_again() -> int | None:
        """The next task in the same worker; another runs what comes before it is free."""
        again = daemon.client().submit("plain")
        return again.id if again.result(30) == pid else None

    idle = eventually(used_again, "its worker is used again")
    assert title(pid)[0] in ("taskd: worker r42", f"taskd: worker r42 task {idle} plain")


def pgrep(*words: str) -> list[int]:
    ran = subprocess.run(["pgrep", *words], capture_output=True, text=True, check=False)
    return [int(pid) for pid in ran.stdout.split()]


def test_the_master_is_called_by_its_name_and_its_release_after_a_reload_too(
    new_daemon: Callable[..., Daemon],
) -> None:
    daemon = new_daemon()
    for name in ("r42", "r43"):
        daemon.release(name, APP)
    daemon.point("r42")
    daemon.start()
    shows = lambda name: title(daemon.pid) == (f"taskd: master {name}", "taskd: master")  # noqa: E731
    eventually(lambda: shows("r42"), "it shows its release")
    daemon.reload("r43")
    assert title(daemon.pid)[1] == "taskd: master"
    assert daemon.pid in pgrep("taskd")
    eventually(lambda: shows("r43"), "it shows its new release")
    daemon.release("r44", "raise RuntimeError")
    with pytest.raises(DeployRefused):
        daemon.reload("r44")
    assert shows("r43")


def test_a_master_that_is_back_is_called_as_before(new_daemon: Callable[..., Daemon]) -> None:
    daemon = new_daemon()
    daemon.extra["TASKD_FAULT"] = daemon.path("fault")
    for name in ("r42", "r43"):
        daemon.release(name, APP)
    daemon.point("r42")
    daemon.start()
    with open(daemon.path("fault"), "w", encoding="ascii") as file:
        file.write("check the descriptors exception\n")
    with pytest.raises(DeployRefused):
        daemon.reload("r43")
    eventually(lambda: title(daemon.pid) == ("taskd: master r42", "taskd: master"), "its old title")
