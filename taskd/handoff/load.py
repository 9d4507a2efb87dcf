"""The new master from a snapshot: the counterpart of ``dump``.

Runs before anything is read, accepted, reaped or dispatched. It copies, and claims each descriptor
by its name in the ledger; it does nothing else with them.
"""

from __future__ import annotations

import os
import socket
from typing import Any

from taskd.config import Config
from taskd.errors import ProtocolError
from taskd.master.fleet import Revision, Running, Worker
from taskd.master.loop import LOCKS, Entry, Kind, LifeState, Messages, Wire
from taskd.master.master import Master
from taskd.paths import Places
from taskd.posix import sockets
from taskd.protocol.server_side import ServerSide
from taskd.revision.rejected import Rejected
from taskd.upgrade.snapshot import Snapshot


def entries(taken: Snapshot) -> list[Entry]:
    """The snapshot's ledger. Raises ProtocolError for a kind that this version does not know."""
    try:
        return [Entry(fd, Kind(kind), name) for fd, kind, name in taken.fields["ledger"]]
    except ValueError as error:
        raise ProtocolError(f"the snapshot's ledger: {error}") from error


class Loader:
    """Builds the new master; every descriptor of the ledger is claimed by its name, once."""

    def __init__(self, taken: Snapshot, gave_back: bool = False) -> None:
        """``gave_back``: this image wrote the snapshot itself, and the deploy has failed."""
        fields = taken.fields
        self._taken = taken
        self._unclaimed = {entry.name: entry for entry in entries(taken)}
        table = fields["config_before"] if gave_back else fields["config"]
        config = Config.from_table(table, fields["config_source"])
        self.master = Master(config, Places(*fields["places"]), LifeState.ADOPTING)

    def load(self) -> Master:
        """Raises ProtocolError if the snapshot and the descriptors do not fit together."""
        fields, master = self._taken.fields, self.master
        for entry in list(self._unclaimed.values()):
            if entry.kind is Kind.LISTENER:
                master.listeners.sockets[entry.name] = self._socket(entry.name)
            elif entry.kind in LOCKS:
                master.statedir.locks[entry.name] = self._unclaimed.pop(entry.name)
        for each in fields["revisions"]:
            self._load_revision(each)
        for each in fields["workers"]:
            self._load_worker(each)
        for each in fields["orphans"]:
            master.attempts.hold(Running.restored(each), None)
        for each in fields["strangers"]:
            self._load_stranger(each)
        for each in fields["clients"]:
            self._load_client(each)
        master.deploy.restore(fields["deploy"], self._taken.get(fields["deploy"]["hook"]))
        master.life.note = fields["note"]
        master.after_drain.previous = fields["after_drain"]
        master.revisions.rejected = [Rejected(*each) for each in fields["rejected"]]
        master.children.not_ours = frozenset(fields["not_ours"])
        master.listeners.given = frozenset(fields["given"])
        if self._unclaimed:
            raise ProtocolError(f"descriptors that nothing claims: {', '.join(self._unclaimed)}")
        return master

    def _claim(self, name: str) -> int:
        try:
            return self._unclaimed.pop(name).fd
        except KeyError:
            raise ProtocolError(f"the ledger has no descriptor {name}") from None

    def _socket(self, name: str) -> socket.socket:
        return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=self._claim(name))

    def _messages(self, name: str, channel: list[list[int]]) -> Messages:
        unread, unsent = (self._taken.get(place) for place in channel)
        return Messages(Wire(self.master.loop, self._socket(name), unsent), unread)

    def _load_revision(self, fields: dict[str, Any]) -> None:
        revision = Revision.restored(fields, None)
        if fields["channel"] is not None:
            channel = self._messages(revision.channel_name, fields["channel"])
            revision = Revision.restored(fields, channel)
        self.master.revisions.restore(revision)
        if revision.zygote.channel is not None:
            self.master.zygotes.listen(revision)

    def _load_worker(self, fields: dict[str, Any]) -> None:
        master = self.master
        worker = Worker.restored(fields, master.revisions.by_number(fields["revision"]))
        master.workers.restore(worker)
        if fields["has_slot"]:
            worker.slot_fd = self._claim(worker.slot_name)
        if fields["channel"] is not None:
            worker.channel = self._messages(worker.channel_name, fields["channel"])
            master.workers.listen(worker)
        if fields["running"] is not None:
            running = Running.restored(fields["running"])
            master.attempts.hold(running, worker)
            if running.asked == "cancel":
                master.attempts.enforce(running, worker)

    def _load_stranger(self, fields: dict[str, Any]) -> None:
        channel = self._messages(f"stranger:{fields['fd']}", fields["channel"])
        raw = socket.socket(fileno=os.dup(channel.wire.fd))
        try:
            pid = sockets.peer(raw).pid
        finally:
            raw.close()
        self.master.introductions.meet(channel, pid)

    def _load_client(self, fields: dict[str, Any]) -> None:
        number = fields["number"]
        sock = self._socket(f"client:{number}")
        wire = Wire(self.master.loop, sock, self._taken.get(fields["unsent"]))
        side = ServerSide.restore(fields["side"], self._taken.get(fields["unread"]))
        clients, streams = self.master.clients, self.master.streams
        client = clients.add(number, wire, side, fields["uid"], fields["is_control"])
        for stream in fields["streams"]:
            streams.restore(client, stream)
