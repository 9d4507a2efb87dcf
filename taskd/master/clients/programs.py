"""What is checked of a program that a client queues (`taskctl run`), before it is accepted."""

from __future__ import annotations

import os
import stat
from typing import Any

from taskd.errors import BadArguments, NotAllowed
from taskd.master.clients.client import Client
from taskd.master.fleet import Revision
from taskd.model.task import COMMAND
from taskd.paths import MORE
from taskd.posix import mounts
from taskd.revision import release
from taskd.systemd import notify


def check_program(client: Client, args: dict[str, Any], revision: Revision | None) -> None:
    """Raises NotAllowed (only operators may queue programs), or BadArguments for a directory
    that the service cannot enter, a program that it cannot run, and an input that it cannot read.

    The master runs as the same user and in the same sandbox as the workers: what it cannot
    enter, run or read, they cannot. Without the check the task would fail, perhaps hours later.
    """
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
    if revision is not None and (why_not := _why_not_run(args, revision)) is not None:
        raise BadArguments(f"{COMMAND}: {why_not}")
    stdin = args.get("stdin")
    if isinstance(stdin, str) and not os.access(stdin, os.R_OK):
        raise BadArguments(
            f"{COMMAND}: the service cannot read {stdin!r}, which is to be the program's input: it "
            f"runs as user {os.getuid()}"
        )


def _why_not_run(args: dict[str, Any], revision: Revision) -> str | None:
    """Why its program cannot be started, as far as that is known; None: it can."""
    argv, cwd, env = args.get("argv"), args.get("cwd"), args.get("env")
    if not isinstance(argv, list) or not argv or not isinstance(argv[0], str) or not argv[0]:
        return None  # the task says what is wrong
    name = argv[0]
    path = env.get("PATH") if isinstance(env, dict) else None
    if "/" in name:
        where = cwd if isinstance(cwd, str) else revision.path  # where workers are
        places = [os.path.join(where, name)]
        searched = ""
    else:
        if path is not None and not isinstance(path, str):
            return None  # a secret
        if path is None:
            variables = release.environment(revision.zygote.python, revision.app.environment)
            path = variables.get("PATH", os.defpath)
        places = [os.path.join(each, name) for each in path.split(":")]
        searched = f"; searched {path}"
    found = [place for place in places if _is_program(place)]
    if any(os.access(place, os.X_OK) for place in found):
        return None
    if found:
        return f"the service may not run {found[0]!r}, as user {os.getuid()}: chmod a+x"
    return f"program not found: {name!r}{searched}"


def _is_program(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False
