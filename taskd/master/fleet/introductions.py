"""worker.sock: who connects there, and who it proves to be.

A connection is a stranger's until its hello names an id that we gave out (or that a record or slot
on disk bears witness to), from the very process that has it, as the kernel says.

Whoever can run code as the daemon's user, so every task, can connect as often as it likes: a few
connections are accepted in a turn of the loop, so that clients have theirs, and few strangers are
kept, so that descriptors are left. Who is proven says hello at once; a silent one has to go.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from taskd import log
from taskd.master.clients.peer_limits import Seldom
from taskd.master.fleet import ceilings, verify
from taskd.master.fleet.worker import Worker
from taskd.master.loop.ledger import Kind
from taskd.master.loop.loop import Timer
from taskd.master.loop.wire import Messages, Wire
from taskd.posix import limits, process, sockets
from taskd.record import Record
from taskd.slot import reader as slot_reader

if TYPE_CHECKING:
    from taskd.master.master import Master

ACCEPTED = 16
"""Connections accepted in one turn of the loop."""

STRANGERS = 128
"""Connections that may be silent at a time; fewer where there are few descriptors."""

HELLO_WITHIN = 10.0
"""Seconds that a fresh connection has to say who it is."""


class _Stranger(Record):
    """``dismiss`` closes its connection."""

    channel: Messages
    pid: int
    timer: Timer
    dismiss: Callable[[], None]


class Doorway:
    """Owns the connections that have not said who they are."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._strangers: dict[int, _Stranger] = {}
        self._turned_away = Seldom("stranger on worker.sock turned away")
        self._other_user = Seldom("another user on worker.sock turned away")

    def accept(self, listener: socket.socket) -> None:
        """worker.sock is readable: somebody connected."""
        with contextlib.suppress(BlockingIOError):
            for _ in range(ACCEPTED):
                sock, _ = listener.accept()
                peer = sockets.peer(sock)
                if peer.uid != os.getuid():  # whatever became of the socket's mode
                    self._other_user.warn(uid=peer.uid)
                    sock.close()
                    continue
                self.meet(Messages(Wire(self._master.loop, sock)), peer.pid)
                self._thin_out()

    def _thin_out(self) -> None:
        """The strangers that came first go, where there are too many: after a last look whether
        they have said hello."""
        while self._are_too_many:
            first = next(iter(self._strangers.values()))
            first.channel.wire.look()
            if first in self._strangers.values():
                first.dismiss()
                self._turned_away.warn(pid=first.pid, why="too many that say nothing")

    @property
    def _are_too_many(self) -> bool:
        """The descriptors that are kept for clients are not for strangers either, but for one."""
        count = len(self._strangers)
        return count > most_strangers() or (
            count > 1 and limits.left() < ceilings.kept_for_clients()
        )

    def meet(self, channel: Messages, pid: int) -> None:
        """A connection that has not said who it is yet."""
        fd = channel.wire.fd
        name = f"stranger:{fd}"

        def forget() -> None:
            if (known := self._strangers.pop(fd, None)) is not None:
                known.timer.cancel()
                self._master.ledger.drop(name)

        def on_message(message: dict[str, Any]) -> None:
            forget()
            if not self._introduce(channel, pid, message):
                self._turned_away.warn(pid=pid)
                channel.wire.close()

        def dismiss() -> None:
            forget()
            channel.wire.close()

        timer = self._master.loop.after(HELLO_WITHIN, dismiss)
        self._strangers[fd] = _Stranger(channel, pid, timer, dismiss)
        self._master.ledger.add(fd, Kind.WORKER, name)
        channel.on_message = on_message
        channel.wire.on_lost = forget
        channel.wire.start()

    def strangers(self) -> list[Messages]:
        return [stranger.channel for stranger in self._strangers.values()]

    def hear_last_words(self, pid: int, listener: socket.socket) -> None:
        """That process was reaped: what it said on a connection that nobody has read yet."""
        with contextlib.suppress(OSError):  # out of descriptors: the death alone must do
            self.accept(listener)
        for stranger in list(self._strangers.values()):
            if stranger.pid == pid:
                stranger.channel.wire.drain()

    def _introduce(self, channel: Messages, pid: int, message: dict[str, Any]) -> bool:
        """Whether its hello proves who it is: an id that we gave out, from the pid it names."""
        if message.get("type") == "unready":
            return self._note_unready(channel, pid, message)
        if message.get("type") != "hello" or message.get("pid") != pid:
            return False
        if message["role"] == "zygote":
            revision = self._master.revisions.by_zygote(message["id"])
            if revision is None or revision.pid != pid or revision.channel is not None:
                return False
            self._master.revisions.greet(revision, channel, message)
            return True
        worker = self._master.workers.get(message["id"])
        if worker is None or not _is_meant(worker, pid, message):
            return False
        if worker.slot_fd < 0:
            try:
                worker.slot_fd = slot_reader.open_slot(self._slot_path(worker), os.O_RDWR)
            except OSError as error:  # out of descriptors: it exits, or tries again
                log.error("cannot open a worker's slot", worker=worker.id, why=error.strerror)
                return False
            self._master.ledger.add(worker.slot_fd, Kind.SLOT, worker.slot_name)
        self._master.workers.greet(worker, channel, message)
        return True

    def _note_unready(self, channel: Messages, pid: int, message: dict[str, Any]) -> bool:
        """A worker that could not begin says why; its death follows."""
        worker = self._master.workers.get(message["worker"])
        if worker is not None and worker.pid in (0, pid):
            worker.unready = message["message"]
        channel.wire.close()
        return worker is not None

    def _slot_path(self, worker: Worker) -> str:
        return os.path.join(self._master.places.slots, f"{worker.id.hex()}.slot")


def most_strangers() -> int:
    return max(4, min(STRANGERS, limits.most() // 8))


def _is_meant(worker: Worker, pid: int, message: dict[str, Any]) -> bool:
    """Whether that process is the worker we know by this id, at what we know it to do."""
    if worker.pid == 0:
        return worker.channel is None and verify.is_start_of(pid, message["start"])
    if worker.pid != pid or worker.start not in (0, process.start_time(pid)):
        return False  # (0: its zygote could not tell, for want of a descriptor)
    if worker.running is None:
        return worker.channel is None
    return message.get("busy") == [worker.running.task, worker.running.attempt]
