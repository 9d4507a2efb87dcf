"""Checks a program that a client queues (`taskctl run`) before the task is accepted.

The master runs as the same user and in the same sandbox as the workers: a directory that it cannot
enter, they cannot enter. Without the check the task would fail, perhaps hours later.
"""

from __future__ import annotations

import os
from typing import Any

from taskd.errors import BadArguments, NotAllowed
from taskd.master.clients.client import Client
from taskd.model.task import COMMAND
from taskd.paths import MORE
from taskd.posix import mounts
from taskd.systemd import notify


def check(client: Client, args: dict[str, Any]) -> None:
    """Raises NotAllowed (only operators may queue programs), or BadArguments for a working
    directory that the service cannot enter."""
    if not client.is_control:
        raise NotAllowed(
            "programs are run as the service's user, so only its operators may queue them "
            "(by control.sock)"
        )
    cwd = args.get("cwd")
    if isinstance(cwd, str) and (error := mounts.why_not_entered(cwd)) is not None:
        why = f"it runs as user {os.getuid()}"
        if notify.is_heard():
            why += (
                ", and the sandbox of its unit hides home directories and has a /tmp of its own "
                f"({MORE} has the lines that change that)"
            )
        raise BadArguments(
            f"{COMMAND}: the service cannot enter {cwd!r} ({error.strerror}): {why}. Name "
            "a directory that it can enter: `taskctl run --cwd DIR -- CMD`"
        )
