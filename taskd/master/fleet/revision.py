"""One revision, as the master holds it in memory; ``revisions`` owns them."""

from __future__ import annotations

import os
import time
from typing import Any

from taskd.config import App
from taskd.master.fleet.zygote import Zygote
from taskd.master.loop import Messages
from taskd.model.revision import REVISIONS, RevisionEvent, RevisionState
from taskd.model.table import after
from taskd.upgrade.snapshot import Carried


class Revision:
    """One release that the master knows.

    ``name``: the release's (``revision.release``); does not change. ``path``: the release's real
    path. ``fingerprint``: of its files; None until the zygote has sent it. ``app``: the
    configuration that it was deployed with, and with which its zygotes are started. ``since``: Unix
    seconds; ``draining_since``: likewise, while it drains, else 0. ``tasks``, ``forks``, ``taskd``
    (the version there), ``warnings``: from its manifest. ``number``: grows with every revision, so
    that the newest live one is known.
    """

    __slots__ = (
        "app",
        "draining_since",
        "fingerprint",
        "forks",
        "name",
        "number",
        "path",
        "since",
        "state",
        "taskd",
        "tasks",
        "warnings",
        "zygote",
    )

    def __init__(self, path: str, number: int, app: App, name: str = "") -> None:
        self.path = path
        self.app = app
        self.name = name or os.path.basename(path)
        self.number = number
        self.state = RevisionState.STARTING
        self.zygote = Zygote()
        self.fingerprint: str | None = None
        self.tasks: dict[str, Any] = {}
        self.forks = True
        self.taskd = ""
        self.since = time.time()
        self.draining_since = 0.0
        self.warnings: list[str] = []

    @property
    def channel_name(self) -> str:
        """The name of the zygote's connection in the ledger."""
        return f"zygote:{self.number}"

    def export(self, carried: Carried) -> dict[str, Any]:
        """For the snapshot. ``warnings`` are left out: the deploy has reported them."""
        return {
            "number": self.number,
            "path": self.path,
            "name": self.name,
            "app": self.app._asdict(),
            "state": self.state.value,
            "fingerprint": self.fingerprint,
            "tasks": self.tasks,
            "forks": self.forks,
            "taskd": self.taskd,
            "since": self.since,
            "draining_since": self.draining_since,
            **self.zygote.export(carried),
        }

    @classmethod
    def restored(cls, fields: dict[str, Any], channel: Messages | None) -> Revision:
        """From ``export``'s fields, of this version or of the one before. ``channel``: of the
        zygote, if it was connected."""
        app = {name: fields["app"][name] for name in App._fields if name in fields["app"]}
        revision = cls(fields["path"], fields["number"], App(**app), fields["name"])
        revision.state = RevisionState(fields["state"])
        revision.fingerprint = fields["fingerprint"]
        revision.tasks, revision.forks = fields["tasks"], fields["forks"]
        revision.taskd = fields["taskd"]
        revision.since, revision.draining_since = fields["since"], fields["draining_since"]
        revision.zygote = Zygote.restored(fields, channel)
        return revision

    def take(self, event: RevisionEvent) -> None:
        self.state = after(REVISIONS, self.state, event)
