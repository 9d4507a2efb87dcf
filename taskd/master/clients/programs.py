"""What is asked of a program that an operator queues (`taskctl run`), before it is accepted.

The master is in the same sandbox as the workers and the same user: where it cannot go, they cannot.
What is found here would else be the task's failure, hours later.
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
    """Raises NotAllowed, or BadArguments for a working directory that the service cannot enter."""
    if not client.is_control:
        raise NotAllowed(
            "programs are run as the service's user, so only its operators may queue them "
            "(by control.sock)"
        )
    cwd = args.get("cwd")
    if isinstance(cwd, str) and (error := mounts.why_not_entered(cwd)) is not None:
        raise BadArguments(
            f"{COMMAND}: the service cannot enter {cwd!r} ({error.strerror}): {_explained()}. Name "
            "a directory that it can enter: `taskctl run --cwd DIR -- CMD`"
        )


def _explained() -> str:
    user = f"it runs as user {os.getuid()}"
    if not notify.is_heard():
        return user
    return (
        f"{user}, and the sandbox of its unit hides home directories and has a /tmp of its own "
        f"({MORE} has the lines that change that)"
    )
