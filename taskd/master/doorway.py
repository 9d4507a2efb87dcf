"""worker.sock: who connects there, and who it proves to be.

A connection is a stranger's until its hello names an id that we gave out (or that a record or slot
on disk bears witness to), from the very process that has it, as the kernel says.
"""

from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING, Any

from taskd import log
from taskd.master import verify
from taskd.master.ledger import Kind
from taskd.master.loop import Timer
from taskd.master.wire import Messages, Wire
from taskd.master.worker import Worker
from taskd.posix import process, sockets
from taskd.slot import reader as slot_reader

if TYPE_CHECKING:
    from taskd.master.core import Master

HELLO_WITHIN = 10.0
"""Seconds that a fresh connection has to say who it is."""


class Doorway:
    """Owns the connections that have not said who they are."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._strangers: dict[int, tuple[Messages, Timer, int]] = {}

    def accept(self, listener: socket.socket) -> None:
        """worker.sock is readable: somebody connected."""
        with contextlib.suppress(BlockingIOError):
            while True:
                sock, _ = listener.accept()
                peer = sockets.peer(sock)
                if peer.uid != os.getuid():  # whatever became of the socket's mode
                    log.warning("another user on worker.sock turned away", uid=peer.uid)
                    sock.close()
                    continue
                self.meet(Messages(Wire(self._master.loop, sock)), peer.pid)

    def meet(self, channel: Messages, pid: int) -> None:
        """A connection that has not said who it is yet."""
        fd = channel.wire.fd
        name = f"stranger:{fd}"

        def forget() -> None:
            if (known := self._strangers.pop(fd, None)) is not None:
                known[1].cancel()
                self._master.ledger.drop(name)

        def on_message(message: dict[str, Any]) -> None:
            forget()
            if not self._introduce(channel, pid, message):
                log.warning("stranger on worker.sock turned away", pid=pid)
                channel.wire.close()

        def expire() -> None:
            forget()
            channel.wire.close()

        timer = self._master.loop.after(HELLO_WITHIN, expire)
        self._strangers[fd] = channel, timer, pid
        self._master.ledger.add(fd, Kind.WORKER, name)
        channel.on_message = on_message
        channel.wire.on_lost = forget
        channel.wire.start()

    def strangers(self) -> list[Messages]:
        return [channel for channel, _, _ in self._strangers.values()]

    def hear_last_words(self, pid: int, listener: socket.socket) -> None:
        """That process was reaped: what it said on a connection that nobody has read yet."""
        with contextlib.suppress(OSError):  # out of descriptors: the death alone must do
            self.accept(listener)
        for channel, _, speaker in list(self._strangers.values()):
            if speaker == pid:
                channel.wire.drain()

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


def _is_meant(worker: Worker, pid: int, message: dict[str, Any]) -> bool:
    """Whether that process is the worker we know by this id, at what we know it to do."""
    if worker.pid == 0:
        return worker.channel is None and verify.is_start_of(pid, message["start"])
    if worker.pid != pid or worker.start not in (0, process.start_time(pid)):
        return False  # (0: its zygote could not tell, for want of a descriptor)
    if worker.running is None:
        return worker.channel is None
    return message.get("busy") == [worker.running.task, worker.running.attempt]
