"""The new master from a snapshot: the counterpart of ``dump``.

Runs before anything is read, accepted, reaped or dispatched. A plain copy: what the old master
left is looked at and claimed, by its name in the ledger, and nothing else is done with it.
"""

from __future__ import annotations

import os
import socket
from typing import Any

from taskd.config import App, Config, Limits
from taskd.errors import ProtocolError
from taskd.master.clients.clients import Client
from taskd.master.deploy.verdict import Caller
from taskd.master.fleet.revision import Revision
from taskd.master.fleet.running import Running
from taskd.master.fleet.worker import Worker
from taskd.master.loop.ledger import LOCKS, Entry, Kind
from taskd.master.loop.wire import Messages, Wire
from taskd.master.master import Master
from taskd.model.revision import RevisionState
from taskd.model.upgrade import Phase
from taskd.model.worker import WorkerState
from taskd.paths import Places
from taskd.posix import sockets
from taskd.protocol.server_side import ServerSide
from taskd.revision.rejected import Rejected
from taskd.upgrade.snapshot import Snapshot


def entries(taken: Snapshot) -> list[Entry]:
    """The ledger as it was handed over. Raises ProtocolError for a kind we do not know."""
    try:
        return [Entry(fd, Kind(kind), name) for fd, kind, name in taken.fields["ledger"]]
    except ValueError as error:
        raise ProtocolError(f"the snapshot's ledger: {error}") from error


class Loader:
    """Builds the new master; every descriptor of the ledger is claimed by its name, once."""

    def __init__(self, taken: Snapshot, gave_back: bool = False) -> None:
        """``gave_back``: we wrote the snapshot ourselves, and the deploy has failed."""
        fields = taken.fields
        self._taken = taken
        self._unclaimed = {entry.name: entry for entry in entries(taken)}
        table = fields["config_before"] if gave_back else fields["config"]
        config = Config.from_table(table, fields["config_source"])
        self.master = Master(config, Places(*fields["places"]))

    def load(self) -> Master:
        """Raises ProtocolError if the snapshot and the descriptors do not fit together."""
        fields = self._taken.fields
        self.master.is_adopting = True
        self._load_listeners()
        for each in fields["revisions"]:
            self._load_revision(each)
        for each in fields["workers"]:
            self._load_worker(each)
        for each in fields["orphans"]:
            self.master.attempts.hold(_load_running(each), None)
        for each in fields["strangers"]:
            self._load_stranger(each)
        for each in fields["clients"]:
            self._load_client(each)
        self._load_deploy(fields["deploy"])
        self.master.note = fields["note"]
        self.master.after_drain.previous = fields["after_drain"]
        self.master.revisions.rejected = [Rejected(*each) for each in fields["rejected"]]
        self.master.not_ours = frozenset(fields["not_ours"])
        self.master.given = frozenset(fields["given"])
        if self._unclaimed:
            raise ProtocolError(f"descriptors that nobody claims: {', '.join(self._unclaimed)}")
        return self.master

    def _claim(self, name: str) -> int:
        try:
            return self._unclaimed.pop(name).fd
        except KeyError:
            raise ProtocolError(f"the ledger has no descriptor {name}") from None

    def _socket(self, name: str) -> socket.socket:
        return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=self._claim(name))

    def _load_listeners(self) -> None:
        for entry in [e for e in self._unclaimed.values() if e.kind is Kind.LISTENER]:
            self.master.adopt_listener(entry.name, self._socket(entry.name))
        for entry in [e for e in self._unclaimed.values() if e.kind in LOCKS]:
            self.master.ledger.add(self._claim(entry.name), entry.kind, entry.name)

    def _messages(self, name: str, channel: list[list[int]]) -> Messages:
        unread, unsent = (self._taken.get(place) for place in channel)
        return Messages(Wire(self.master.loop, self._socket(name), unsent), unread)

    def _load_revision(self, fields: dict[str, Any]) -> None:
        app = {name: fields["app"][name] for name in App._fields if name in fields["app"]}
        revision = Revision(fields["path"], fields["number"], App(**app), fields["name"])
        revision.state = RevisionState(fields["state"])
        for name in ("fingerprint", "tasks", "forks", "zygote_id", "zygote_retired", "pid",
                     "start", "version", "is_foreign", "python", "taskd", "since",
                     "draining_since"):  # fmt: skip
            setattr(revision, name, fields[name])
        self.master.revisions.restore(revision)
        if fields["channel"] is not None:
            revision.channel = self._messages(revision.ledger_name, fields["channel"])
            fd = revision.channel.wire.fd
            self.master.ledger.add(fd, Kind.ZYGOTE, revision.ledger_name)
            self.master.revisions.listen(revision)

    def _load_worker(self, fields: dict[str, Any]) -> None:
        master = self.master
        worker = Worker(fields["id"], master.revisions.by_number(fields["revision"]))
        worker.state = WorkerState(fields["state"])
        for name in ("pid", "start", "served", "is_ours", "is_orphan", "is_grouped",
                     "asked_to_leave"):  # fmt: skip
            setattr(worker, name, fields[name])
        worker.limits = None if fields["limits"] is None else Limits(*fields["limits"])
        master.workers.restore(worker)
        if fields["has_slot"]:
            worker.slot_fd = self._claim(worker.slot_name)
            master.ledger.add(worker.slot_fd, Kind.SLOT, worker.slot_name)
        if fields["channel"] is not None:
            worker.channel = self._messages(worker.channel_name, fields["channel"])
            master.ledger.add(worker.channel.wire.fd, Kind.WORKER, worker.channel_name)
            master.workers.listen(worker)
        if fields["running"] is not None:
            running = _load_running(fields["running"])
            master.attempts.hold(running, worker)
            if running.asked == "cancel":
                master.attempts.enforce(running, worker)

    def _load_stranger(self, fields: dict[str, Any]) -> None:
        name = f"stranger:{fields['fd']}"
        channel = self._messages(name, fields["channel"])
        raw = socket.socket(fileno=os.dup(channel.wire.fd))
        try:
            pid = sockets.peer(raw).pid
        finally:
            raw.close()
        self.master.doorway.meet(channel, pid)

    def _load_client(self, fields: dict[str, Any]) -> None:
        number = fields["number"]
        sock = self._socket(f"client:{number}")
        wire = Wire(self.master.loop, sock, self._taken.get(fields["unsent"]))
        side = ServerSide.restore(fields["side"], self._taken.get(fields["unread"]))
        clients = self.master.clients
        client = Client(clients, number, wire, side, fields["uid"], fields["is_control"])
        clients.add(client)
        for stream in fields["streams"]:
            self.master.streams.restore(client, stream)

    def _load_deploy(self, fields: dict[str, Any]) -> None:
        deploy = self.master.deploy
        deploy.phase = Phase(fields["phase"])
        deploy.target = self.master.revisions.by_number(fields["target"])
        deploy.paused_at = fields["paused_at"]
        deploy.callers = [Caller(client, request) for client, request in fields["callers"]]
        deploy.plan, deploy.unfit = fields["plan"], fields["unfit"]
        deploy.hook = self._taken.get(fields["hook"]).decode()


def _load_running(fields: dict[str, Any]) -> Running:
    running = Running.__new__(Running)
    for name in Running.__slots__:
        setattr(running, name, fields[name])
    return running
