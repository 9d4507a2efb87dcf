"""Accepts connections on worker.sock, and checks which zygote or worker each one is.

A connection is a stranger's until its hello names an id that the master gave out (or that a record
or slot on disk names), and comes from the process that has the id, according to the kernel.

Every process of the daemon's user, so every task, can connect as often as it likes. A few
connections are accepted in a turn of the loop, so that clients are served too, and few strangers
are kept, so that descriptors are left. A worker says hello at once; silent strangers are closed.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable
from math import isfinite
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
from taskd.slot import layout, reader as slot_reader

ACCEPTED = 16
"""Connections accepted in one turn of the loop."""

STRANGERS = 128
"""Strangers that are kept at a time; fewer where there are few descriptors."""

HELLO_WITHIN = 10.0
"""Seconds that a new connection has for its hello."""


class Stranger(Record):
    """A connection without a hello so far. ``dismiss`` closes it."""

    channel: Messages
    pid: int
    timer: Timer
    dismiss: Callable[[], None]


class Introductions:
    """``strangers``: by descriptor, owned."""

    def __init__(
        self, loop: Loop, slots: str, revisions: Revisions, workers: Workers, zygotes: Zygotes
    ) -> None:
        """``slots``: the directory of the slots."""
        self._loop = loop
        self._slots = slots
        self._revisions = revisions
        self._workers = workers
        self._zygotes = zygotes
        self.strangers: dict[int, Stranger] = {}
        self._turned_away = Seldom("stranger on worker.sock turned away")
        self._other_user = Seldom("another user on worker.sock turned away")

    def carried(self) -> list[Entry]:
        return [Entry(fd, Kind.WORKER, f"stranger:{fd}") for fd in self.strangers]

    # ── coming and going ─────────────────────────────────────────────────────────────────────

    def accept(self, listener: socket.socket) -> None:
        """worker.sock is readable: a process has connected."""
        with contextlib.suppress(BlockingIOError):
            for _ in range(ACCEPTED):
                sock, _ = listener.accept()
                peer = sockets.peer(sock)
                if peer.uid != os.getuid():  # the socket's mode may have been changed
                    self._other_user.warn(uid=peer.uid)
                    sock.close()
                    continue
                self.meet(Messages(Wire(self._loop, sock)), peer.pid)
                self._thin_out()

    def _thin_out(self) -> None:
        """Close the oldest strangers if there are too many, after a last look for their hello. All
        strangers but one leave alone the descriptors that are kept for clients."""
        while (count := len(self.strangers)) > most_strangers() or (
            count > 1 and limits.left() < ceilings.kept_for_clients()
        ):
            first = next(iter(self.strangers.values()))
            first.channel.wire.look()
            if first in self.strangers.values():
                first.dismiss()
                self._turned_away.warn(pid=first.pid, why="too many that say nothing")

    def meet(self, channel: Messages, pid: int) -> None:
        """Wait for the hello of this connection of process ``pid``."""
        fd = channel.wire.fd

        def forget() -> None:
            if (known := self.strangers.pop(fd, None)) is not None:
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
        self.strangers[fd] = Stranger(channel, pid, timer, dismiss)
        channel.on_message = on_message
        channel.wire.on_lost = forget
        channel.wire.watch()

    def drain(self, pid: int) -> None:
        """That process is dead: read what it has sent on connections that are strangers still."""
        for stranger in list(self.strangers.values()):
            if stranger.pid == pid:
                stranger.channel.wire.drain()

    # ── the proof ────────────────────────────────────────────────────────────────────────────

    def _introduce(self, channel: Messages, pid: int, message: dict[str, Any]) -> bool:
        """Whether the hello is true: an id that the master gave out, from the process that has
        it. If so, the zygote or worker takes over the connection."""
        if message.get("type") == "unready":
            return self._note_unready(channel, pid, message)
        if message.get("type") != "hello" or message.get("pid") != pid:
            return False
        if message["role"] == "zygote":
            for revision in self._revisions:
                zygote = revision.zygote
                if zygote.id == message["id"] and zygote.pid == pid and not zygote.channel:
                    self._zygotes.greet(revision, channel, message)
                    return True
            return False
        worker = self._workers.get(message["id"])
        if worker is None or not _is_meant(worker, pid, message):
            return False
        if worker.slot_fd < 0:
            path = os.path.join(self._slots, layout.file_name(worker.id))
            try:
                worker.slot_fd = slot_reader.open_slot(path, os.O_RDWR)
            except OSError as error:  # transient error: the worker exits, or connects again
                log.error("cannot open a worker's slot", worker=worker.id, why=error.strerror)
                return False
        if (running := worker.running) is not None and running.begun is None:
            running.begun = _begun(message)
        self._workers.greet(worker, channel, message)
        return True

    def _note_unready(self, channel: Messages, pid: int, message: dict[str, Any]) -> bool:
        """A worker that could not begin says why; the report of its death follows."""
        worker = self._workers.get(message["worker"])
        if worker is not None and worker.pid in (0, pid):
            worker.unready = message["message"]
        channel.wire.close()
        return worker is not None


def _begun(message: dict[str, Any]) -> float | None:
    """When the worker's attempt began, as it says (the task's code may say it too)."""
    told = message.get("begun")
    return min(told, time.monotonic()) if type(told) is float and isfinite(told) else None


def most_strangers() -> int:
    return max(4, min(STRANGERS, limits.most() // 8))


def _is_meant(worker: Worker, pid: int, message: dict[str, Any]) -> bool:
    """Whether process ``pid`` is this worker, and runs the attempt that the master knows of."""
    if worker.pid == 0:
        return worker.channel is None and verify.is_start_of(pid, message["start"])
    if worker.pid != pid or worker.start not in (0, process.start_time(pid)):
        return False  # (0: its zygote could not read it, for lack of descriptors)
    if worker.running is None:
        return worker.channel is None
    return message.get("busy") == [worker.running.task, worker.running.attempt]
