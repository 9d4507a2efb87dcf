"""What is fuzzed: every place where taskd reads bytes that it did not write just now.

A target takes bytes and returns. It raises (an AssertionError, or whatever got out) if the code
under test did something else than it promises: read it, or refuse it with the error that it names.
Used by ``python -m contrib.fuzz`` and by tests/hostile/test_fuzz.py, which mutate ``samples``.
"""

from __future__ import annotations

import os
import struct
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import cbor2

import taskd
from taskd.config import Config
from taskd.errors import ConfigError, ProtocolError
from taskd.protocol import boot, data, frames, worker
from taskd.protocol.client_side import ClientSide
from taskd.protocol.control import NEWEST, OLDEST
from taskd.protocol.operations import STREAMS
from taskd.protocol.saved import Kind, Saved
from taskd.protocol.server_side import Answer, Farewell, Hello, Request, ServerSide
from taskd.revision import confirmed, record, rejected
from taskd.slot import layout, reader
from taskd.upgrade import snapshot

GOLDEN = Path(taskd.__file__).parent.parent / "tests" / "golden"


class Target(NamedTuple):
    run: Callable[[bytes], None]
    samples: list[bytes]


# ── what comes over sockets ──────────────────────────────────────────────────────────────────


def fuzz_frames(raw: bytes) -> None:
    """In pieces as in one; once broken always broken; nothing is kept that was returned."""
    found = []
    for pieces in ([raw], [raw[i : i + 7] for i in range(0, len(raw), 7)]):
        decoder, messages = frames.Decoder(), []
        try:
            for piece in pieces:
                decoder.feed(piece)
                while (message := decoder.next()) is not None:
                    assert isinstance(message, dict)
                    messages.append(repr(message))
        except ProtocolError as error:
            messages.append(f"broken: {error}")
            _is_broken_for_good(decoder)
        else:
            assert decoder.size == len(decoder.rest) <= len(raw)
        found.append(messages)
    assert found[0] == found[1]


def _is_broken_for_good(decoder: frames.Decoder) -> None:
    decoder.feed(frames.encode({"hello": {}}))
    try:
        decoder.next()
    except ProtocolError:
        return
    raise AssertionError("a broken decoder went on")


def fuzz_server(raw: bytes) -> None:
    """The daemon's end of a client's connection: it answers whatever is asked, until it breaks."""
    side = ServerSide()
    side.feed(raw)
    try:
        while (event := side.next()) is not None:
            match event:
                case Hello(version):
                    assert OLDEST <= version <= NEWEST
                    side.welcome(1000, False, "0")
                case Request(number, op, _):
                    side.reply(number, {})
                    if op in STREAMS:
                        side.item(number, {"event": 1})
                        side.end(number, {})
                case Answer(answer):
                    assert answer
                case Farewell():
                    return
    except ProtocolError:
        return
    restored = ServerSide.restore(cbor2.loads(cbor2.dumps(side.export())), side.rest)
    assert restored.export() == side.export()


def fuzz_client(raw: bytes) -> None:
    """A client's end: a daemon (or who passes for one) says whatever it likes."""
    side = ClientSide()
    for op, fields in (("status", {}), ("wait", {"tasks": [1]}), ("follow", {"tasks": [1]})):
        side.request(op, fields)
    side.feed(raw)
    try:
        while side.next() is not None:
            pass
    except ProtocolError:
        return


def fuzz_worker(raw: bytes) -> None:
    """What a zygote or a worker says to the master."""
    decoder = frames.Decoder()
    decoder.feed(raw)
    try:
        while (message := decoder.next()) is not None:
            worker.check(message)
    except ProtocolError:
        return


def fuzz_data(raw: bytes) -> None:
    """User values: what is read is what would be written."""
    try:
        value = data.decode(raw)
    except ProtocolError:
        return
    assert repr(data.decode(data.encode(value))) == repr(value)


# ── what lies on disks ───────────────────────────────────────────────────────────────────────

_HEADER = layout.encode_header(layout.Header(bytes(16), 1, 2, "boot", "r1"))


def fuzz_slot(raw: bytes) -> None:
    """The file as it is."""
    _read_slot(raw)


def fuzz_slot_records(raw: bytes) -> None:
    """A record whose checksum is right, behind a header that is: only its content is wrong."""
    _read_slot(_HEADER + layout.frame(layout.seed(bytes(16)), layout.BLOCK, raw))


def _read_slot(raw: bytes) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(raw)
        file.flush()
        try:
            content = reader.read(file.fileno())
        except (layout.SlotDamaged, layout.SlotFromFuture):
            return
        assert content.size <= len(raw)
        _add_up(content)


def _add_up(content: reader.Content) -> None:
    try:
        kept = Saved(1) if content.snapshot is None else Saved.decode(content.snapshot)
        for each in content.records:
            kept.apply(each.kind, each.fields)
    except ProtocolError:
        return


def fuzz_saved(raw: bytes) -> None:
    """A task's whole saved state."""
    try:
        saved = Saved.decode(raw)
    except ProtocolError:
        return
    assert Saved.decode(saved.encode()) == saved or "nan" in repr(saved).lower()


def fuzz_saved_records(raw: bytes) -> None:
    """One record that a task has saved, its kind first."""
    try:
        fields = cbor2.loads(raw[1:])
    except (cbor2.CBORDecodeError, ValueError, RecursionError):
        return
    if isinstance(fields, dict) and raw[0] != Kind.END:
        _add_up_one(raw[0], fields)


def _add_up_one(kind: int, fields: dict[str, Any]) -> None:
    try:
        Saved(1).apply(kind, fields)
    except ProtocolError:
        return


def _fuzz_file(raw: bytes, read: Callable[[str], object], *allowed: type[Exception]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "rejected")
        Path(path).write_bytes(raw)
        try:
            read(path)
        except allowed:
            return


def fuzz_confirmed(raw: bytes) -> None:
    """Which release a start uses: one, or a refusal that names the file."""
    _fuzz_file(raw, confirmed.read, ConfigError)


def fuzz_rejected(raw: bytes) -> None:
    """The list of what was refused: it only tells, so that nothing in it may keep a start."""
    with mock.patch.object(rejected.log, "warning"):  # it says so each time
        _fuzz_file(raw, lambda path: rejected.read(os.path.dirname(path)))


def fuzz_zygote_record(raw: bytes) -> None:
    """What a zygote leaves for the next master."""
    _fuzz_file(raw, record.read, record.RecordError)


def fuzz_config(raw: bytes) -> None:
    """``taskd.toml``: a configuration, or an error that names the key."""
    import tomllib

    try:
        table = tomllib.loads(raw.decode())
    except (ValueError, RecursionError):
        return
    try:
        found = Config.from_table(table, "t")
    except ConfigError as error:
        assert str(error).startswith("t: ")
        return
    assert Config.from_table(found.table, "t") == found


# ── what is handed over ──────────────────────────────────────────────────────────────────────


def fuzz_snapshot(raw: bytes) -> None:
    """The memory file that one master leaves to the next, as it is."""
    try:
        snapshot.decode(raw)
    except ProtocolError:
        return


def fuzz_snapshot_fields(raw: bytes) -> None:
    """One whose checksum is right: it was written by another version, or by a bug."""
    fuzz_snapshot(struct.pack(">8sII", snapshot.MAGIC, len(raw), zlib.crc32(raw)) + raw)


def fuzz_boot(raw: bytes) -> None:
    """What a zygote is told at its start."""
    try:
        boot.decode(raw)
    except ProtocolError:
        return


def _hex_lines(name: str) -> list[bytes]:
    lines = (GOLDEN / name).read_text().splitlines()
    return [bytes.fromhex(line.split("#")[0].removeprefix(">").removeprefix("<")) for line in lines]


def _sides(name: str) -> tuple[bytes, bytes]:
    """What the client and what the daemon said, each as one stream."""
    said: dict[str, bytes] = {">": b"", "<": b""}
    for line in (GOLDEN / name).read_text().splitlines():
        who, raw = line.split()
        said[who] += bytes.fromhex(raw)
    return said[">"], said["<"]


def _saved_records() -> list[bytes]:
    value = data.encode(1)
    fields: dict[int, dict[str, Any]] = {
        Kind.BEGIN: {"task": 1, "attempt": 1, "name": "t", "version": 1, "at": 1.0},
        Kind.STEP: {"path": "a/b", "value": value, "state": data.encode({"x": 1})},
        Kind.LOOP: {"path": "a", "mark": {"cursor": value, "done": 1, "total": 2}},
        Kind.CHECKPOINT: {"state": data.encode({})},
        Kind.PROGRESS: {"done": 1, "total": None, "note": ""},
        Kind.SNAPSHOT: {"saved": Saved(1).encode(), "begin": {}, "saves": 1, "progress": None},
    }
    return [bytes([kind]) + cbor2.dumps(each) for kind, each in fields.items()]


_CLIENTS = [_sides("client-3.hex")]
_SNAPSHOTS = [(GOLDEN / f"snapshot-{name}.bin").read_bytes() for name in ("1", "0.2.0")]
_SAVED = [(GOLDEN / "saved-state-1.cbor").read_bytes()]
_CONFIRMED = b'{"release": "/srv/app/r1", "previous": null, "fingerprint": "0f", "at": 1.5}\n'
_REJECTED = b'[{"revision": "r1", "path": "/srv/r1", "reason": "does not import", "at": 1.5}]\n'
_CONFIG = b"""[app]
release = "/srv/app/current"
modules = ["app.tasks"]
[queues.default]
concurrency = 8
[daemon]
orphan_grace = "10min"
[access]
submit_groups = ["www-data"]
[hooks]
before = ["bin/migrate", "--expand"]
"""
_BOOT = boot.encode(boot.Boot(bytes(16), "/s", "/r", "r1", ["app"], "auto", "/slots", "/run"))
_RECORD = cbor2.dumps({"format": 1, "id": bytes(16), "pid": 1, "start": 2, "boot": "b"})

TARGETS: dict[str, Target] = {
    "frames": Target(fuzz_frames, [side for sides in _CLIENTS for side in sides]),
    "server": Target(fuzz_server, [client for client, _ in _CLIENTS]),
    "client": Target(fuzz_client, [daemon for _, daemon in _CLIENTS]),
    "worker": Target(fuzz_worker, _hex_lines("worker-3.hex")),
    "data": Target(fuzz_data, [*_hex_lines("data-1.hex"), *_hex_lines("data-2.hex")]),
    "slot": Target(fuzz_slot, [(GOLDEN / "slot-1.slot").read_bytes(), _HEADER]),
    "slot_records": Target(
        fuzz_slot_records,
        [layout.encode_body(each[0], cbor2.loads(each[1:])) for each in _saved_records()],
    ),
    "saved": Target(fuzz_saved, _SAVED),
    "saved_records": Target(fuzz_saved_records, _saved_records()),
    "confirmed": Target(fuzz_confirmed, [_CONFIRMED]),
    "rejected": Target(fuzz_rejected, [_REJECTED]),
    "zygote_record": Target(fuzz_zygote_record, [_RECORD]),
    "config": Target(fuzz_config, [_CONFIG]),
    "snapshot": Target(fuzz_snapshot, _SNAPSHOTS),
    "snapshot_fields": Target(
        fuzz_snapshot_fields, [cbor2.dumps(snapshot.decode(raw).fields) for raw in _SNAPSHOTS]
    ),
    "boot": Target(fuzz_boot, [_BOOT]),
}
