"""One revision, as the master holds it in memory, and who waits for its proof.

``revisions`` owns them all.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from taskd.config import App
from taskd.errors import DeployRefused
from taskd.master.loop.deadline import Deadline
from taskd.master.loop.wire import Messages
from taskd.model.endings import death_in_words
from taskd.model.revision import REVISIONS, RevisionEvent, RevisionState
from taskd.model.table import after


class Revision:
    """One release that the master knows.

    ``name``: what the release is called (``revision.naming``), for as long as this lives. ``key``:
    its real path and fingerprint; the fingerprint is None until the zygote has told it. ``app``:
    the configuration it was deployed with, which its zygote is started with for as long as it
    lives. ``python``: the release's, as it was when the zygote was started; ``since``: Unix
    seconds; ``draining_since``: likewise, while it drains, else 0. ``tasks``, ``taskd`` (its
    version there): the manifest's.
    ``number``: grows with every start, so that the newest live revision can be told.
    ``is_foreign``: its zygote was started by a master that died, and is not our child.
    """

    __slots__ = (
        "app",
        "channel",
        "draining_since",
        "fingerprint",
        "forks",
        "is_foreign",
        "name",
        "number",
        "path",
        "pid",
        "python",
        "since",
        "start",
        "state",
        "taskd",
        "tasks",
        "version",
        "warnings",
        "zygote_id",
        "zygote_retired",
    )

    def __init__(self, path: str, number: int, app: App, name: str = "") -> None:
        self.path = path
        self.app = app
        self.name = name or os.path.basename(path)
        self.number = number
        self.state = RevisionState.STARTING
        self.fingerprint: str | None = None
        self.tasks: dict[str, Any] = {}
        self.forks = True
        self.zygote_id = b""
        self.pid: int | None = None
        self.start = 0
        self.version = 0  # of the worker protocol, as its zygote says; 0.2 goes by it
        self.python = ""
        self.taskd = ""
        self.since = time.time()
        self.draining_since = 0.0
        self.channel: Messages | None = None
        self.zygote_retired = False
        self.is_foreign = False
        self.warnings: list[str] = []  # of its proof, for who deploys it

    def take(self, event: RevisionEvent) -> None:
        self.state = after(REVISIONS, self.state, event)

    @property
    def ledger_name(self) -> str:
        return f"zygote:{self.number}"


def early_end(revision: Revision, status: int | None) -> str:
    """Why a zygote died before its manifest came."""
    if revision.fingerprint is not None:  # it has spoken
        what = "its process ended while the app was importing"
    else:
        what = (
            f"{revision.python} ended before it came to the app; can it import taskd? (see the log)"
        )
    return f"{revision.name}: {what}: {death_in_words(status)}"


class Proof:
    """Somebody waits for a revision's zygote to prove itself (or a ping to come back)."""

    __slots__ = ("anew", "deadline", "done", "revision")

    def __init__(
        self,
        revision: Revision,
        done: Callable[[Revision | DeployRefused], None],
        anew: bool = False,
    ) -> None:
        self.revision = revision  # changes if it turns out to be a live one
        self.done = done
        self.anew = anew  # it counts as another, also where the same is live
        self.deadline: Deadline | None = None
