"""Slots to test with, real child processes to test against, and disks that fill up."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import strategies

from taskd.posix import process
from taskd.protocol.saved import Kind
from taskd.slot.writer import SlotWriter

WORKER = bytes(range(16))

BEGIN = {"task": 7, "attempt": 2, "name": "import", "version": 1, "at": 1.5}

END = {"task": 7, "attempt": 2, "outcome": "left", "progressed": True}


@contextlib.contextmanager
def new_slot(directory: str, worker: bytes = WORKER) -> Iterator[SlotWriter]:
    """A slot of this process, with its descriptor closed at the end."""
    slot = SlotWriter.create(directory, worker, process.identity(), "r1")
    try:
        yield slot
    finally:
        os.close(slot.fd)


def step(size: int) -> dict[str, Any]:
    return {"path": "rows/parse", "value": b"v" * size}


def size_of(slot: SlotWriter) -> int:
    return os.fstat(slot.fd).st_size


def blocks_of(slot: SlotWriter) -> int:
    return os.fstat(slot.fd).st_blocks * 512


def memory_file(data: bytes) -> int:
    """A descriptor of a file that holds ``data``, from whose position nothing may be read."""
    fd = os.memfd_create("slot")
    os.write(fd, data)
    return fd


# What a task may do to its slot: a list of (verb, argument).
_blob = strategies.binary(max_size=40).map(lambda raw: raw.replace(b"\0\0", b"\0\1"))
moves = strategies.lists(
    strategies.one_of(
        strategies.tuples(st_kind, _blob)
        for st_kind in (
            strategies.just(Kind.STEP),
            strategies.just(Kind.LOOP),
            strategies.just(Kind.CHECKPOINT),
            strategies.just(Kind.PROGRESS),
            strategies.just(Kind.SNAPSHOT),
            strategies.just(Kind.BEGIN),
        )
    ),
    max_size=12,
)


class Model:
    """What ``reader.read`` must say, kept by other means than reading the file.

    ``after``: for each offset at which a whole record ends, what stands in the slot up to there.
    """

    def __init__(self) -> None:
        self.now: dict[str, Any] = {
            "begin": None,
            "snapshot": None,
            "records": [],
            "progress": None,
            "end": None,
            "saves": 0,
        }
        self.after: dict[int, dict[str, Any]] = {}
        self.holes_end = 0  # where the last snapshot ends: what is before it may be gone

    def note(self, kind: int, offset: int, fields: dict[str, Any], end: int) -> None:
        now = {**self.now, "records": list(self.now["records"])}
        if kind == Kind.BEGIN:
            now = {**Model().now, "begin": fields}
        elif kind == Kind.SNAPSHOT:
            now.update(snapshot=fields["saved"], records=[])
            self.holes_end = end
        elif kind == Kind.PROGRESS:
            now["progress"] = fields
        elif kind == Kind.END:
            now["end"] = fields
        else:
            now["records"].append((offset, int(kind), fields))
            now["saves"] += 1
        self.now = self.after[end] = now


def play(slot: SlotWriter, made: list[tuple[Kind, bytes]], end: bool) -> Model:
    """Write those moves, after a first BEGIN, and say what they add up to."""
    model = Model()

    def write(kind: int, fields: dict[str, Any]) -> None:
        if kind == Kind.SNAPSHOT:
            offset = slot.snapshot(fields["saved"])
        elif kind == Kind.END:
            offset = slot.append_end(fields)
        else:
            offset = slot.append(kind, fields)
        model.note(kind, offset, fields, os.fstat(slot.fd).st_size)

    write(Kind.BEGIN, BEGIN)
    for number, (kind, blob) in enumerate(made):
        if kind == Kind.SNAPSHOT:
            write(kind, {"saved": blob})
        elif kind == Kind.BEGIN:
            write(kind, {**BEGIN, "attempt": number})
        else:
            write(kind, {"path": f"rows/{number}", "value": blob})
    if end:
        write(Kind.END, {"task": 7, "attempt": 2, "outcome": "left", "progressed": True})
    return model


def told(content: Any) -> dict[str, Any]:
    """A ``reader.Content`` in the model's form."""
    return {
        "begin": content.begin,
        "snapshot": content.snapshot,
        "records": [tuple(record) for record in content.records],
        "progress": content.progress,
        "end": content.end,
        "saves": content.saves,
    }


def in_child(work: Callable[[], None]) -> None:
    """Run ``work`` in a forked child; its exception fails the test here, with its traceback."""
    reads, writes = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reads)
            work()
        except BaseException:
            os.write(writes, traceback.format_exc().encode()[-60000:])
        finally:
            os._exit(0)
    os.close(writes)
    with open(reads, "rb") as file:
        report = file.read()
    _, status = os.waitpid(pid, 0)
    assert not report, report.decode()
    assert status == 0, f"the child ended with wait status {status}"


class Child:
    """A forked child that does ``work``, says so, and then does ``then`` or waits to be killed."""

    def __init__(self, work: Callable[[], None], then: Callable[[], object] = signal.pause) -> None:
        reads, writes = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(reads)
                work()
                os.write(writes, b"ready")
            except BaseException:
                os.write(writes, traceback.format_exc().encode()[-60000:])
                os._exit(1)
            try:
                while True:
                    then()
            finally:
                os._exit(1)
        os.close(writes)
        self._said = os.read(reads, 65536).decode()
        os.close(reads)
        self._reaped = False

    def __enter__(self) -> Child:
        if self._said != "ready":
            self.__exit__()
        assert self._said == "ready", self._said
        return self

    @property
    def running(self) -> bool:
        return not process.is_gone(process.identity(self.pid))

    def kill(self) -> None:
        """SIGKILL; returns once it is a zombie, not reaped."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)

    def reap(self) -> None:
        os.waitpid(self.pid, 0)
        self._reaped = True

    def __exit__(self, *_: object) -> None:
        if not self._reaped:
            os.kill(self.pid, signal.SIGKILL)
            self.reap()


@contextlib.contextmanager
def small_disk(directory: str, size: str) -> Iterator[bool]:
    """A real file system of that size on ``directory``; False where mounting is not permitted."""
    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.mount(b"tmpfs", directory.encode(), b"tmpfs", 0, f"size={size}".encode()) == 0
    try:
        yield done
    finally:
        if done:
            libc.umount2(directory.encode(), 2)  # MNT_DETACH: also with descriptors left open
