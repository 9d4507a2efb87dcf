"""What the daemon says of itself, for the tests of faults."""

from __future__ import annotations

from support.daemon import Daemon


def problems(daemon: Daemon) -> list[str]:
    """What `taskctl status` says does not go on."""
    with daemon.client() as client:
        return list(client.status()["problems"])


def reason(daemon: Daemon, task: int) -> str:
    """What `taskctl show` says of a task."""
    with daemon.raw() as raw:
        return str(raw.ask("show", task=task)["task"]["reason"])
