"""The snapshot's specification is whole: what is exported is read, and comes back as it was."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from bench import Bench, Line, PlayedClient
from forked import in_child

from taskd.config import Limits
from taskd.handoff.dump import dump
from taskd.handoff.load import Loader
from taskd.master.clients.client import Client
from taskd.master.clients.streams import Stream
from taskd.master.deploy.deploy import Deploy
from taskd.master.fleet.revision import Revision
from taskd.master.fleet.running import Known, Running
from taskd.master.fleet.worker import Parent, Worker
from taskd.master.fleet.zygote import Zygote
from taskd.master.loop.callers import Caller
from taskd.master.loop.wire import Messages, Wire
from taskd.master.master import Master
from taskd.model.revision import RevisionState
from taskd.model.task import Budgets
from taskd.model.upgrade import Phase
from taskd.paths import WORKER_SOCKET
from taskd.protocol import frames
from taskd.revision.rejected import Rejected
from taskd.upgrade import snapshot
from taskd.upgrade.snapshot import Snapshot

FRESH: dict[type, Any] = {
    Running: lambda: Running(0, "", "", -1, ""),
    Zygote: Zygote,
    Revision: lambda: Revision("", 0, None),  # type: ignore[arg-type]
    Worker: lambda: Worker(b"", None),  # type: ignore[arg-type]
    Stream: lambda: Stream(None, 0, [], False),  # type: ignore[arg-type]
}
"""The classes that list their fields, and one of each with nothing that is worth carrying."""

STAY = {
    Revision: {"warnings": "they were told with the plan"},
    Worker: {
        "unready": "no worker boots at an exec",
        "patience": "what it leaves behind the next master finds out anew",
    },
    Stream: {"stale": "all of its tasks are looked at anew", "is_asking": "likewise"},
}
"""Fields that do not cross an exec, and why."""

OF_USERS = {"config", "config_before", "app", "tasks", "progress", "plan", "config_source"}
"""Below these, the keys are the users'."""

READ_LATER = {
    "pid": "by none but who looks at a snapshot",
    "wishes": "once the new image serves",
    "config_before": "by the image that is given the daemon back, in place of `config`",
    "version": "when it is decoded",
}
"""Fields of the whole that loading does not read."""


def busy(root: Path) -> Bench:
    """A master with something of everything in it, in no state that is a default."""
    bench = Bench(root)
    bench.serve()
    master = bench.master
    task = bench.submit()
    worker = bench.fork()
    order = bench.run(worker)
    report = {"task": task, "attempt": order["attempt"], "done": 1, "total": 2, "note": "half"}
    worker.send({"type": "progress"} | report)
    worker.send({"type": "waiting", "task": task, "attempt": order["attempt"], "message": "full"})
    bench.until(lambda: (running := master.attempts.get(task)) and running.waiting)
    bench.master.attempts.ask(task, "leave", "a test")
    client = PlayedClient(bench)
    client.ask("follow", tasks=[task, bench.submit("other")], progress=True)
    client.ask("wait", tasks=[task])
    bench.until(lambda: len(client.talk()) > 3)
    client.sock.send(b"\0\0\1")  # of a frame that is yet to come
    worker.sock.send(frames.encode({"type": "idle", "reusable": True})[:5])
    stranger = Line(bench.connect(WORKER_SOCKET))
    stranger.sock.send(b"\0\0")
    (peer,) = master.clients
    bench.until(lambda: peer.side.rest and master.introductions.strangers)
    bench.turn()
    _settle_fields(bench, task)
    return bench


def _settle_fields(bench: Bench, task: int) -> None:
    """What the run above has left as it was made."""
    master = bench.master
    revision = bench.revision
    revision.draining_since, revision.taskd, revision.forks = 1234.5, "9.9", False
    revision.name, revision.zygote.python = "r1-again", "/usr/bin/python9"
    revision.zygote.id, revision.zygote.is_foreign, revision.zygote.version = b"z" * 16, True, 9
    known = master.attempts.worker_of(task)
    assert known is not None and known.running is not None
    known.parent, known.limits, known.is_grouped = Parent.INIT, Limits(1 << 30, 7), False
    known.asked_to_leave, known.served = "a test", 3
    known.running.timed_out = "a test"
    known.running.silent = 1.5
    target = master.revisions.add("/srv/r2", master.config.app)
    target.state = RevisionState.PROVEN
    ours, theirs = socket.socketpair()
    target.zygote.channel = Messages(Wire(master.loop, ours, b"unsent"), b"\0\0")
    target.zygote.pid = 1 << 22
    bench._open.append(theirs)
    master.revisions.target = target
    master.revisions.rejected = [Rejected("r0", "/srv/r0", "a test", 5.0)]
    known = Known(1, 2, 5, Budgets(1, 2, 3), 4, "r1", b"worker", 5.0, 9.0, 2.5, True)
    master.attempts.hold(Running(4711, "default", "work", 0, "finish", known=known), None)
    (client,) = master.clients
    for stream in master.streams.of(client):
        stream.within, stream.after = task, 11
    deploy = master.deploy
    deploy.callers, deploy.paused_at = [Caller(client.number, 5)], 77.5
    deploy.plan, deploy.unfit, deploy.hook = {"held": 0}, [task], "said “ö”\n"
    master.after_drain.previous = "/srv/r0"
    master.children.not_ours, master.listeners.given = frozenset({42}), frozenset({"control.sock"})
    master.life.note = "a note"


def taken(master: Master) -> Snapshot:
    return snapshot.decode(dump(master, [1], Phase.ADOPTING))


# ── it comes back as it was ──────────────────────────────────────────────────────────────────


def test_a_master_that_was_loaded_dumps_what_it_was_loaded_from(tmp_path: Path) -> None:
    def under_test() -> tuple[bytes, bytes]:
        bench = busy(tmp_path)  # kept: it closes its ends as it goes
        raw = dump(bench.master, [1], Phase.ADOPTING)
        return raw, dump(Loader(snapshot.decode(raw)).load(), [1], Phase.ADOPTING)

    before, after = in_child(under_test)
    assert snapshot.decode(after).fields == snapshot.decode(before).fields
    assert after == before, "the carried bytes, too"


def objects(master: Master) -> list[object]:
    """One of each class that lists its fields."""
    worker = next(w for w in master.workers if w.running is not None)
    (client,) = master.clients
    follow, wait = sorted(master.streams.of(client), key=lambda s: not s.is_follow)
    assert follow.progress and not wait.is_follow
    revision = worker.revision
    return [worker.running, revision.zygote, revision, worker, follow]


def told_apart(value: object) -> object:
    """What can be compared of a field across two masters."""
    if isinstance(value, Running | Stream):
        return value.export()
    if isinstance(value, Revision | Client):
        return value.number
    return value.__class__.__name__ if isinstance(value, Messages | Zygote) else value


def fields(master: Master) -> dict[tuple[str, str], object]:
    return {
        (type(each).__name__, name): told_apart(getattr(each, name))
        for each in objects(master)
        for name in type(each).__slots__  # type: ignore[attr-defined]
        if name not in STAY.get(type(each), {}) and name != "slot_fd"
    }


def test_every_field_crosses_an_exec_or_it_says_why_not(tmp_path: Path) -> None:
    """A new field is worth something here (``busy``), and that is what comes back."""

    def under_test() -> tuple[Any, ...]:
        bench = busy(tmp_path)
        master = bench.master
        slots = [w.slot_fd for w in master.workers]
        loaded = Loader(taken(master)).load()
        return fields(master), fields(loaded), slots == [w.slot_fd for w in loaded.workers]

    before, after, slots_are_the_same = in_child(under_test)
    assert after == before
    assert slots_are_the_same
    fresh = {
        (kind.__name__, name): told_apart(getattr(make(), name))
        for kind, make in FRESH.items()
        for name in kind.__slots__  # type: ignore[attr-defined]
    }
    same = {name for name, value in before.items() if value == fresh[name]}
    assert same <= {("Revision", "zygote")}, "give it another value in `busy`"


# ── every key is written and read ────────────────────────────────────────────────────────────


class Recording(dict[str, Any]):
    """Says which of its keys are read, also those of the maps in it."""

    def __init__(self, fields: dict[str, Any], place: str = "") -> None:
        super().__init__({key: self._wrapped(value, key) for key, value in fields.items()})
        self.place = place
        self.read: set[str] = set()

    def _wrapped(self, value: Any, place: str) -> Any:
        if place in OF_USERS:
            return value
        if isinstance(value, list):
            return [self._wrapped(each, place) for each in value]
        return Recording(value, place) if isinstance(value, dict) else value

    def __getitem__(self, key: str) -> Any:
        self.read.add(key)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self.read.add(key)
        return super().get(key, default)

    def __contains__(self, key: object) -> bool:
        self.read.add(str(key))
        return super().__contains__(key)

    def all(self) -> list[Recording]:
        """With those below it."""
        found = [self]
        for value in self.values():
            for each in value if isinstance(value, list) else [value]:
                found += each.all() if isinstance(each, Recording) else []
        return found


def test_every_key_that_is_exported_is_read_when_it_is_loaded(tmp_path: Path) -> None:
    def under_test() -> tuple[set[str], set[str]]:
        bench = busy(tmp_path)
        found = taken(bench.master)
        top = found.fields = Recording(found.fields)
        Loader(found).load()
        left = {
            f"{each.place}: {key}"
            for each in top.all()
            for key in set(each) - each.read
            if each.place or key not in READ_LATER
        }
        return left, {each.place for each in top.all()}

    unread, places = in_child(under_test)
    assert unread == set()
    assert places >= {"revisions", "workers", "orphans", "strangers", "clients", "streams"}
    assert places >= {"running", "deploy", "side"}


@pytest.mark.parametrize(
    "kind", [Running, Zygote, Revision, Worker, Client, Stream, Deploy], ids=lambda k: k.__name__
)
def test_each_class_says_itself_what_of_it_crosses_an_exec(kind: type) -> None:
    assert callable(getattr(kind, "export", None))
