"""The variables of a task: its own, and never those of the daemon or of who started the daemon."""

from __future__ import annotations

from collections.abc import Callable

from support import processes
from support.daemon import Daemon

APP = """
import os, subprocess
from taskd import task

def ours():
    return {name: value for name, value in os.environ.items() if name.startswith("TASKD_")}

AT_IMPORT = ours()
os.environ["TASKD_REVISION"] = "set by the app"

@task
def told():
    shown = subprocess.run(["env"], capture_output=True, text=True, check=True).stdout
    program = dict(line.split("=", 1) for line in shown.splitlines() if line.startswith("TASKD_"))
    return [os.getpid(), AT_IMPORT, ours(), program]
"""

OF_ANOTHER_TASK = {
    "TASKD_TASK_ID": "99",
    "TASKD_ATTEMPT": "3",
    "TASKD_REVISION": "r0",
    "TASKD_SCRATCH": "/nowhere",
    "TASKD_SOCKET": "/nowhere/control.sock",
    "TASKD_HANDED_OVER": "/nowhere/python",
    "TASKD_CONFIG": "/nowhere/taskd.toml",
}


def test_what_the_daemon_was_started_with_reaches_no_task_and_costs_no_worker(
    new_daemon: Callable[..., Daemon],
) -> None:
    daemon = new_daemon(queues={"default": {"concurrency": 1}})
    daemon.with_releases(APP, "r1")
    daemon.extra = {**OF_ANOTHER_TASK, "TASKD_OF_THE_USER": "kept"}
    daemon.start()
    pids = []
    with daemon.client() as client:
        for _ in range(4):
            task = client.submit("told")
            pid, at_import, in_task, in_program = task.result(30)
            pids.append(pid)
            rest = {name for name in at_import if not name.startswith("TASKD_TEST_")}
            assert rest == {"TASKD_OF_THE_USER"}
            assert in_program == in_task
            assert {name: in_task.get(name) for name in OF_ANOTHER_TASK} == {
                "TASKD_TASK_ID": str(task.id),
                "TASKD_ATTEMPT": "1",
                "TASKD_REVISION": "r1",
                "TASKD_SCRATCH": daemon.path("state", "scratch", str(task.id)),
                "TASKD_SOCKET": daemon.runtime,
                "TASKD_HANDED_OVER": None,
                "TASKD_CONFIG": None,
            }
            daemon.through(pids)
    assert all(processes.is_alive(pid) for pid in pids), "each could be used again"
    assert "it is not used again" not in daemon.log()
