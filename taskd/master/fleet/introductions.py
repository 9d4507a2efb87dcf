"""worker.sock: who connects there, and who it proves to be.

A connection is a stranger's until its hello names an id that the master gave out (or that a record
or slot on disk bears witness to), from the very process that has it, as the kernel says.

Whoever can run code as the daemon's user, so every task, can connect as often as it likes: a few
connections are accepted in a turn of the loop, so that clients have theirs, and few strangers are
kept, so that descriptors are left. A worker says hello at once; a silent stranger has to go.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from typing import Any

from taskd import log
from taskd.master.fleet import ceilings, verify
from taskd.master.fleet.revisions import Revisions
from taskd.master.fleet.worker import Worker
from taskd.master.fleet.workers import Workers
from taskd.master.fleet.zygotes import Zygotes
from taskd.master.loop import Entry, Kind, Loop, Messages, Seldom, Timer, Wire
from taskd.posix import limits, process, sockets
from taskd.record import Record
from taskd.slot import layout
from taskd.slot import reader as slot_reader

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


class Introductions:
    """Owns the connections that have not said who they are."""

    def __init__(
        self, loop: Loop, slots: str, revisions: Revisions, workers: Workers, zygotes: Zygotes
    ) -> None:
        """``slots``: the directory of the slots."""
        self._loop = loop
        self._slots = slots
        self._revisions = revisions
        self._workers = workers
        self._zygotes = zygotes
        self._strangers: dict[int, _Stranger] = {}
        self._turned_away = Seldom("stranger on worker.sock turned away")
        self._other_user = Seldom("another user on worker.sock turned away")

    def strangers(self) -> list[Messages]:
        return [stranger.channel for stranger in self._strangers.values()]

    def carried(self) -> list[Entry]:
        return [Entry(fd, Kind.WORKER, f"stranger:{fd}") for fd in self._strangers]

    # ── coming and going ─────────────────────────────────────────────────────────────────────

    def accept(self, listener: socket.socket) -> None:
        """worker.sock is readable: a process has connected."""
        with contextlib.suppress(BlockingIOError):
            for _ in range(ACCEPTED):
                sock, _ = listener.accept()
                peer = sockets.peer(sock)
                if peer.uid != os.getuid():  # whatever became of the socket's mode
                    self._other_user.warn(uid=peer.uid)
                    sock.close()
                    continue
                self.meet(Messages(Wire(self._loop, sock)), peer.pid)
                self._thin_out()

    def _thin_out(self) -> None:
        """The strangers that came first go, where there are too many: after a last look whether
        they have said hello. The descriptors that are kept for clients are not for strangers
        either, but for one."""
        while (count := len(self._strangers)) > most_strangers() or (
            count > 1 and limits.left() < ceilings.kept_for_clients()
        ):
            first = next(iter(self._strangers.values()))
            first.channel.wire.look()
            if first in self._strangers.values():
                first.dismiss()
                self._turned_away.warn(pid=first.pid, why="too many that say nothing")

    def meet(self, channel: Messages, pid: int) -> None:
        """A connection that has not said who it is yet."""
        fd = channel.wire.fd

        def forget() -> None:
            if (known := self._strangers.pop(fd, None)) is not None:
                known.timer.cancel()

        def on_message(message: dict[str, Any]) -> None:
            forget()
            if not self._introduce(channel, pid, message):
                self._turned_away.warn(pid=pid)
                channel.wire.close()

        def dismiss() -> None:
            forget()
            channel.wire.close()

        timer = self._loop.after(HELLO_WITHIN, dismiss)
        self._strangers[fd] = _Stranger(channel, pid, timer, dismiss)
        channel.on_message = on_message
        channel.wire.on_lost = forget
        channel.wire.watch()

    def drain(self, pid: int) -> None:
        """That process is dead: hear what it said on a connection of which nothing was read."""
        for stranger in list(self._strangers.values()):
            if stranger.pid == pid:
                stranger.channel.wire.drain()

    # ── the proof ────────────────────────────────────────────────────────────────────────────

    def _introduce(self, channel: Messages, pid: int, message: dict[str, Any]) -> bool:
        """Whether its hello proves who it is: an id that the master gave out, from the pid it
        names."""
        if message.get("type") == "unready":
            return self._note_unready(channel, pid, message)
        if message.get("type") != "hello" or message.get("pid") != pid:
            return False
        if message["role"] == "zygote":
            revision = self._revisions.by_zygote(message["id"])
            zygote = None if revision is None else revision.zygote
            if revision is None or zygote is None or zygote.pid != pid or zygote.channel:
                return False
            self._zygotes.greet(revision, channel, message)
            return True
        worker = self._workers.get(message["id"])
        if worker is None or not _is_meant(worker, pid, message):
            return False
        if worker.slot_fd < 0:
            path = os.path.join(self._slots, layout.file_name(worker.id))
            try:
                worker.slot_fd = slot_reader.open_slot(path, os.O_RDWR)
            except OSError as error:  # transient, out of descriptors: it exits, or tries again
                log.error("cannot open a worker's slot", worker=worker.id, why=error.strerror)
                return False
        self._workers.greet(worker, channel, message)
        return True

    def _note_unready(self, channel: Messages, pid: int, message: dict[str, Any]) -> bool:
        """A worker that could not begin says why; its death follows."""
        worker = self._workers.get(message["worker"])
        if worker is not None and worker.pid in (0, pid):
            worker.unready = message["message"]
        channel.wire.close()
        return worker is not None


def most_strangers() -> int:
    return max(4, min(STRANGERS, limits.most() // 8))


def _is_meant(worker: Worker, pid: int, message: dict[str, Any]) -> bool:
    """Whether that process is the worker that is known by this id, at what it is known to do."""
    if worker.pid == 0:
        return worker.channel is None and verify.is_start_of(pid, message["start"])
    if worker.pid != pid or worker.start not in (0, process.start_time(pid)):
        return False  # (0: its zygote could not tell, out of descriptors)
    if worker.running is None:
        return worker.channel is None
    return message.get("busy") == [worker.running.task, worker.running.attempt]
