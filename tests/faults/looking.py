"""What the daemon says of itself, for the tests of faults."""

from __future__ import annotations

from support.daemon import Daemon

from taskd.client.blocking import TaskHandle


def problems(daemon: Daemon) -> list[str]:
    """What `taskctl status` says does not go on."""
    with daemon.client() as client:
        return list(client.status()["problems"])


def reason(daemon: Daemon, task: int) -> str:
    """What `taskctl show` says of a task."""
    with daemon.raw() as raw:
        return str(raw.ask("show", task=task)["task"]["reason"])


def was_told(task: TaskHandle, words: str) -> bool:
    """Waits until that is given as the reason of a change of the task; False if it ends before."""
    return any(words in (event["reason"] or "") for event in task.follow())


def is_between_tasks(worker: int) -> bool:
    """Its last task is over, its own look at what that left of it included."""
    with open(f"/proc/{worker}/cmdline", "rb") as file:
        return b" task " not in file.read()
