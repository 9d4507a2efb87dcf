"""A real master in the test's own process, turned by hand, with the test as its peers.

Sockets, store, loop and slots are real; zygote and workers are played by the test, which speaks
their protocol. ``until`` turns the loop, with a deadline.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.waiting import eventually

from taskd import paths
from taskd.config import Config
from taskd.handoff import old
from taskd.master.fleet.revision import Revision
from taskd.master.loop.life import LifeEvent
from taskd.master.loop.statedir import take_locks
from taskd.master.loop.wire import Messages, Wire
from taskd.master.master import Master
from taskd.model.revision import RevisionEvent
from taskd.model.zygote import ZygoteState
from taskd.paths import CONTROL_SOCKET, SUBMIT_SOCKET, WORKER_SOCKET
from taskd.posix import process, sockets
from taskd.protocol import data, frames, worker as worker_protocol
from taskd.protocol.client_side import ClientEvent, ClientSide
from taskd.slot.writer import SlotWriter

ENTRY = {
    "version": 1,
    "queue": "default",
    "retries": 0,
    "on_deploy": "finish",
    "params": [],
    "any": True,
    "reads": [1],
}


class Line:
    """A peer's end of a channel: whole messages, without ever blocking the test."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.setblocking(False)
        self._decoder = frames.Decoder()
        self.closed = False
        self.seen: list[dict[str, Any]] = []

    def send(self, message: dict[str, Any]) -> None:
        self.sock.sendall(frames.encode(message))

    def receive(self) -> list[dict[str, Any]]:
        """Everything that has come so far, in order."""
        try:
            while chunk := self.sock.recv(1 << 20):
                self._decoder.feed(chunk)
            self.closed = True
        except BlockingIOError:
            pass
        except ConnectionResetError:
            self.closed = True
        while (message := self._decoder.next()) is not None:
            self.seen.append(message)
        return self.seen

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [message for message in self.receive() if message.get("type") == kind]


class PlayedWorker(Line):
    """A worker that the test plays, with a real slot of its own."""

    def __init__(self, bench: Bench, id: bytes, *, idle: bool = True) -> None:
        super().__init__(bench.connect(WORKER_SOCKET))
        me = process.identity()
        self.id = id
        self.slot = SlotWriter.create(bench.master.places.slots, id, me, "r1")
        self.send(
            {
                "type": "hello",
                "role": "worker",
                "version": worker_protocol.VERSION,
                "id": id,
                "pid": me.pid,
                "start": me.start,
                "slot": self.slot.name,
                "busy": None,
                "reads_slots": True,
            }
        )
        if idle:
            self.send({"type": "idle", "reusable": True})


class PlayedClient:
    """A client that the test plays: requests in, events out."""

    def __init__(self, bench: Bench, name: str = CONTROL_SOCKET) -> None:
        self.sock = bench.connect(name)
        self.sock.setblocking(False)
        self.side = ClientSide()
        self.events: list[ClientEvent] = []
        self._unsent = self.side.hello()

    def ask(self, op: str, **fields: Any) -> int:
        number, raw = self.side.request(op, fields)
        self._unsent += raw
        return number

    def talk(self) -> list[ClientEvent]:
        """Send and receive what can be; everything that has come so far."""
        with contextlib.suppress(BlockingIOError):
            while self._unsent:
                self._unsent = self._unsent[self.sock.send(self._unsent) :]
        with contextlib.suppress(BlockingIOError):
            while chunk := self.sock.recv(1 << 20):
                self.side.feed(chunk)
        while (event := self.side.next()) is not None:
            self.events.append(event)
        return self.events


class Bench:
    """The master, its current revision "r1" with the tasks "work" and "other", and its peers."""

    def __init__(self, root: Path, **sections: Any) -> None:
        table = {"app": {"release": str(root / "r1"), "modules": ["app"]}, **sections}
        (root / "r1").mkdir()
        config = Config.from_table(table, str(root / "taskd.toml"))
        places = paths.Places(*(str(root / name) for name in ("state", "run", "logs")))
        paths.ensure(places)
        self.master = Master(config, places)
        old.connect(self.master)
        self.master.statedir.locks = take_locks(self.master.places)
        self.master.storage.open()
        for name in (WORKER_SOCKET, CONTROL_SOCKET, SUBMIT_SOCKET):
            path = os.path.join(places.runtime, name)
            self.master.listeners.sockets[name] = sockets.listen(path, 0o600)
        self._open: list[socket.socket] = []
        self.revision = self._revision(str(root / "r1"))

    def _revision(self, path: str) -> Revision:
        revisions = self.master.revisions
        revision = revisions.add(path, self.master.config.app)
        revision.tasks = {"work": dict(ENTRY), "other": dict(ENTRY)}
        revision.fingerprint = "0" * 16
        revision.zygote.pid, revision.zygote.start = os.getpid(), 1  # played by this process
        revision.take(RevisionEvent.MANIFEST)
        revisions.confirm(revision)
        self.zygote = self.connect_zygote(revision)
        return revision

    def connect_zygote(self, revision: Revision) -> Line:
        ours, theirs = socket.socketpair()
        self._open.append(theirs)
        revision.zygote.channel = Messages(Wire(self.master.loop, ours))
        revision.zygote.state = ZygoteState.CONNECTED
        self.master.zygotes.listen(revision)
        revision.zygote.channel.wire.watch()
        return Line(theirs)

    def connect(self, name: str) -> socket.socket:
        sock = sockets.connect(os.path.join(self.master.places.runtime, name))
        self._open.append(sock)
        return sock

    def serve(self) -> None:
        self.master.life.take(LifeEvent.SERVE)
        self.master.serve()

    def turn(self) -> None:
        timer = self.master.loop.after(0.01, lambda: None)
        self.master.loop.turn()
        timer.cancel()

    def until(self, condition: Callable[[], Any], what: str = "") -> Any:
        """Turn the loop until ``condition`` holds; what it gave then."""
        return eventually(condition, what, between=lambda _: self.turn())

    def submit(self, name: str = "work", **args: Any) -> int:
        """Put one task into the store as a client does; its id."""
        return self.new_task({"name": name, "args": data.encode(args)})

    def new_task(self, fields: dict[str, Any]) -> int:
        """The same, by the fields of its submission."""
        client = PlayedClient(self)
        client.ask("submit", tasks=[fields | {"submission": secrets.token_bytes(16)}])
        reply = self.until(lambda: [e for e in client.talk() if hasattr(e, "ok")])[0]
        client.sock.close()
        return int(reply.ok["tasks"][0]["id"])

    def fork(self, *, idle: bool = True) -> PlayedWorker:
        """Answer the next request for a worker that the zygote has not answered yet."""
        return PlayedWorker(self, self.answer_fork(), idle=idle)

    def answer_fork(self) -> bytes:
        """The same, and nothing comes of that worker yet; its id."""
        answered = getattr(self, "_answered", 0)
        asked = self.until(lambda: self.zygote.of("fork")[answered:])[0]
        self._answered = answered + 1
        me = process.identity()
        forked = {"type": "forked", "worker": asked["worker"], "pid": me.pid, "start": me.start}
        self.zygote.send(forked)
        return bytes(asked["worker"])

    def is_dead(self, id: bytes) -> None:
        """It was played by this process: from now on it was another one, which is gone."""
        if (known := self.master.workers.get(id)) is not None:
            known.start = 1

    def run(self, worker: PlayedWorker) -> dict[str, Any]:
        """The order that the worker gets, begun in its slot."""
        order: dict[str, Any] = self.until(lambda: worker.of("run"))[-1]
        begun = {key: order[key] for key in ("task", "attempt", "name", "at")}
        worker.slot.append(1, begun | {"version": 1})
        return order

    def end(
        self, worker: PlayedWorker, order: dict[str, Any], *, free: bool = False, **fields: Any
    ) -> None:
        """Write END and say so; ``free``: and that it takes another task after that."""
        who = {"task": order["task"], "attempt": order["attempt"]}
        offset = worker.slot.append_end(
            who | {"outcome": "succeeded", "progressed": False, "version": 1} | fields
        )
        worker.send({"type": "ended", "offset": offset, "next": free} | who)

    def close(self) -> None:
        for revision in self.master.revisions:
            if revision.zygote.pid not in (None, os.getpid()):
                with contextlib.suppress(ProcessLookupError, ChildProcessError):
                    os.kill(revision.zygote.pid, signal.SIGKILL)
                    os.waitpid(revision.zygote.pid, 0)
            revision.zygote.pid = None  # if it was this process: the master would kill it
        for sock in self._open:
            sock.close()
        self.master.close()
        for lock in self.master.statedir.locks.values():
            os.close(lock.fd)


NewBench = Callable[..., Bench]


@pytest.fixture
def new_bench(tmp_path: Path) -> Iterator[NewBench]:
    """Makes one that serves, with these sections of the configuration."""
    with contextlib.ExitStack() as open_ones:

        def make(**sections: Any) -> Bench:
            made = Bench(tmp_path, **sections)
            open_ones.callback(made.close)
            made.serve()
            return made

        yield make


@pytest.fixture
def bench(new_bench: NewBench) -> Bench:
    return new_bench()
