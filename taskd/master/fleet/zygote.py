"""One revision's zygote, as the master holds it in memory; ``zygotes`` starts and ends them."""

from __future__ import annotations

from typing import Any

from taskd.master.loop import Messages
from taskd.model.table import after
from taskd.model.zygote import ZYGOTES, ZygoteEvent, ZygoteState
from taskd.upgrade.snapshot import Carried


class Zygote:
    """``pid``: None while there is no process. ``is_foreign``: an earlier master that died started
    it, so that it is not this master's child. ``version``: its version of the worker protocol; a
    master of 0.2 needs it. ``python``: the interpreter with which it was started."""

    __slots__ = ("channel", "id", "is_foreign", "pid", "python", "start", "state", "version")

    def __init__(self) -> None:
        self.state = ZygoteState.ABSENT
        self.id = b""
        self.pid: int | None = None
        self.start = 0
        self.version = 0
        self.python = ""
        self.channel: Messages | None = None
        self.is_foreign = False

    def take(self, event: ZygoteEvent) -> None:
        self.state = after(ZYGOTES, self.state, event)

    def export(self, carried: Carried) -> dict[str, Any]:
        """For the snapshot: the zygote's part of the revision's fields."""
        return {
            "zygote_id": self.id,
            "zygote_retired": self.state is ZygoteState.RETIRING,
            "python": self.python,
            "version": self.version,
            "pid": self.pid,
            "start": self.start,
            "is_foreign": self.is_foreign,
            "channel": None if self.channel is None else self.channel.export(carried),
        }

    @classmethod
    def restored(cls, fields: dict[str, Any], channel: Messages | None) -> Zygote:
        """From ``export``'s fields, of this version or of the one before."""
        zygote = cls()
        zygote.id, zygote.pid, zygote.start = fields["zygote_id"], fields["pid"], fields["start"]
        zygote.python, zygote.version = fields["python"], fields["version"]
        zygote.is_foreign, zygote.channel = fields["is_foreign"], channel
        if zygote.pid is None:
            zygote.state = ZygoteState.ABSENT
        elif fields["zygote_retired"]:
            zygote.state = ZygoteState.RETIRING
        else:
            zygote.state = ZygoteState.LOST if channel is None else ZygoteState.CONNECTED
        return zygote

    def tell(self, message: dict[str, Any]) -> bool:
        """Send it ``message``. False if it is not connected."""
        if self.channel is None:
            return False
        self.channel.send(message)
        return True
