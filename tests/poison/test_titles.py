"""What ps shows of zygotes and workers: who they are and what they do, and no arguments."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.beside import APP
from support.daemon import Daemon
from support.waiting import eventually

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
