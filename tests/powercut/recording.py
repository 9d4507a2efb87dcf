"""One recorded run: what its processes did to the state directory, said to clients and caused.

``steps`` are what a cut can fall between. Files outside of the state directory are not on the
disk that loses its power: the file of effects stands for the world, which remembers everything.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import tracing
from disk import Change, Disk
from tracing import Call

from taskd.errors import ProtocolError
from taskd.protocol import frames

_KEPT_SIZE = "FALLOC_FL_KEEP_SIZE"
_IGNORED = frozenset({"sendto", "recvfrom", "accept4", "close", "sendmsg"})


class Effect(NamedTuple):
    """What a task did in the world, and when (the line in the trace)."""

    task: int
    item: str
    attempt: int
    pid: int
    when: int


class Sync(NamedTuple):
    """A file's sync that returned: from line ``begin`` to ``end``."""

    path: str
    begin: int
    end: int


class Said(NamedTuple):
    """A message that the master sent to a client, at the line in which the call was entered.

    ``asked``: the request it answers, if it answers one.
    """

    when: int
    message: dict[str, Any]
    asked: dict[str, Any] | None


class Recording:
    """``calls`` in the order in which they returned; ``root`` is the state directory."""

    def __init__(self, trace: str, root: str, effects: str) -> None:
        self.root = root
        self.calls: list[Call] = []
        self.effects: list[Effect] = []
        self.syncs: list[Sync] = []
        self.slots: dict[int, str] = {}  # of each worker, by its pid: the slot that it wrote to
        self.said: list[Said] = []
        talk = _Talk()
        for call in tracing.calls(trace):
            if call.name in _IGNORED:
                self.said += talk.hear(call)
            elif call.result >= 0:
                self._take(call, effects)

    def _take(self, call: Call, effects: str) -> None:
        if call.name == "write" and tracing.descriptor(call.args[0])[1] == effects:
            task, item, attempt, _, pid = tracing.text(call.args[1]).decode().split()
            self.effects.append(Effect(int(task), item, int(attempt), int(pid), call.begin))
        elif any(self._is_inside(path) for path in paths(call)):
            self.calls.append(call)
            path = paths(call)[0]
            if call.name in ("fsync", "fdatasync"):
                self.syncs.append(Sync(path, call.begin, call.end))
            elif call.name == "pwrite64" and path.endswith(".slot"):
                self.slots[call.pid] = path

    def _is_inside(self, path: str) -> bool:
        return path == self.root or path.startswith(self.root + "/")

    def cuts(self) -> list[int]:
        """The lines at which something had changed since the one before."""
        return [call.end for call in self.calls if not _only_reads(call)]

    def rare_cuts(self) -> list[int]:
        """Those at which a name, a size or a hole had just changed."""
        usual = ("pwrite64", "write", "fsync", "fdatasync")
        rare = [call for call in self.calls if call.name not in usual and not _only_reads(call)]
        return [call.end for call in rare if "FALLOC_FL_KEEP_SIZE" not in call.args]

    def play(self) -> Iterator[tuple[int, Disk]]:
        """After each cut: its line, and the disk (the same one, which goes on changing)."""
        player = _Player(self.root)
        for call in self.calls:
            player.take(call)
            if not _only_reads(call):
                yield call.end, player.disk

    # ── what one knows at a cut ──────────────────────────────────────────────────────────────

    def told(self, cut: int) -> list[Said]:
        """What may have left the master by then."""
        return [said for said in self.said if said.when <= cut]

    def done(self, cut: int) -> list[Effect]:
        return [effect for effect in self.effects if effect.when <= cut]

    def never_again(self, cut: int) -> set[tuple[int, str]]:
        """The (task, item) that a start after this cut must not do once more.

        Steps that were returned to their task. Items of loops whose record had been synced: it
        was written before the item after it was begun.
        """
        found: set[tuple[int, str]] = set()
        done = self.done(cut)
        for effect in done:
            kind, _, name = effect.item.partition(":")
            if kind == "kept":
                found.add((effect.task, f"ran:{name}"))
        last: dict[tuple[int, int], Effect] = {}
        for effect in (e for e in done if e.item.startswith("item:")):
            before = last.get((effect.task, effect.attempt))
            if before is not None and self._was_synced(effect, cut):
                found.add((before.task, before.item))
            last[effect.task, effect.attempt] = effect
        return found

    def _was_synced(self, since: Effect, cut: int) -> bool:
        path = self.slots.get(since.pid)
        return any(s.path == path and s.begin > since.when and s.end <= cut for s in self.syncs)


def paths(call: Call) -> list[str]:
    """The absolute paths that a call is about."""
    match call.name:
        case "openat":
            return [_joined(call.args[0], call.args[1])]
        case "open" | "creat" | "mkdir" | "rmdir" | "unlink" | "truncate":
            return [os.path.abspath(tracing.text(call.args[0]).decode())]
        case "rename" | "link":
            return [os.path.abspath(tracing.text(arg).decode()) for arg in call.args[:2]]
        case "renameat" | "renameat2" | "linkat":
            return [_joined(*call.args[0:2]), _joined(*call.args[2:4])]
        case "unlinkat" | "mkdirat":
            return [_joined(call.args[0], call.args[1])]
        case "symlink" | "symlinkat" | "sync":
            return []
        case _:
            return [tracing.descriptor(call.args[0])[1]]


def _joined(directory: str, name: str) -> str:
    return os.path.normpath(
        os.path.join(tracing.descriptor(directory)[1], tracing.text(name).decode())
    )


def _only_reads(call: Call) -> bool:
    if call.name == "openat":
        return "O_CREAT" not in call.args[2] and "O_TRUNC" not in call.args[2]
    return False


class _Player:
    """Does to the model of a disk what each call did to the real one."""

    def __init__(self, root: str) -> None:
        self.disk = Disk()
        self._root = root
        self._sequential: dict[str, int] = {}  # where the next write() goes, by path
        self._counts: list[tuple[int, object, int]] = []  # (line, node, changes known then)

    def take(self, call: Call) -> None:
        names = [os.path.relpath(path, self._root) for path in paths(call)]
        names = ["" if name == "." else name for name in names]
        name = names[0]
        match call.name:
            case "openat":
                self._open(name, call.args[2])
            case "mkdir" | "mkdirat":
                self.disk.make_directory(name)
            case "unlink" | "unlinkat" | "rmdir":
                self.disk.remove(name)
            case "rename" | "renameat" | "renameat2":
                self.disk.rename(*names)
            case "fsync" | "fdatasync":
                self._sync(call, name)
            case _ if name in self.disk.now:  # else its name is gone, and its bytes with it
                self._change(call, name)

    def _open(self, name: str, flags: str) -> None:
        if "O_CREAT" in flags and name not in self.disk.now:
            self.disk.create(name)
        if "O_TRUNC" in flags:
            self.disk.change(name, Change(size=0))
        self._sequential[name] = 0

    def _change(self, call: Call, name: str) -> None:
        match call.name:
            case "pwrite64":
                data = tracing.text(call.args[1])[: call.result]
                self.disk.change(name, Change(int(call.args[3]), data))
            case "write":
                data = tracing.text(call.args[1])[: call.result]
                self.disk.change(name, Change(self._sequential[name], data))
                self._sequential[name] += len(data)
            case "ftruncate":
                self.disk.change(name, Change(size=int(call.args[1])))
            case "fallocate" if "PUNCH_HOLE" in call.args[1]:
                hole = Change(int(call.args[2]), hole=int(call.args[3]))
                self.disk.change(name, hole)
            case "fallocate":
                assert _KEPT_SIZE in call.args[1], call
            case _:
                raise AssertionError(f"the model of a disk does not know {call}")
        self._count(call.end, self.disk.file(name))

    def _count(self, line: int, node: Any) -> None:
        self._counts.append((line, node, len(node.changes)))

    def _sync(self, call: Call, name: str) -> None:
        """Covers what had returned when it was entered. Almost always that is all there is."""
        node = self.disk.now.get(name)
        if node is None:
            return
        later = 0
        if call.begin != call.end:
            later = sum(1 for line, of, _ in self._counts if of is node and line > call.begin)
        covered = len(node.changes) - later
        if name and not hasattr(node, "sure"):
            self.disk.sync_directory(name, covered)
        elif name:
            self.disk.file(name).sync(covered)
        else:
            self.disk.sync_directory("", covered)
        if call.begin == call.end:
            self._counts.clear()


class _Talk:
    """The frames that one process and its clients exchange, by the descriptors they use."""

    def __init__(self) -> None:
        self._sent: dict[int, frames.Decoder] = {}
        self._heard: dict[int, frames.Decoder] = {}
        self._asked: dict[tuple[int, int], dict[str, Any]] = {}
        self._master: int | None = None

    def hear(self, call: Call) -> list[Said]:
        """What the master says with this call. It is the process that accepts connections."""
        if call.name == "accept4":
            self._master = call.pid
            self._forget(call.result)
            return []
        if call.pid != self._master or not call.args:
            return []
        assert call.name != "sendmsg", call
        fd = int(re.match(r"\d+", call.args[0])[0])  # type: ignore[index]
        if call.name == "close":
            self._forget(fd)
        elif call.result > 0 and call.args[1].startswith('"'):
            data = tracing.text(call.args[1])[: call.result]
            if call.name == "recvfrom":
                self._ask(fd, data)
            else:
                return self._say(fd, data, call.begin)
        return []

    def _forget(self, fd: int) -> None:
        self._sent.pop(fd, None)
        self._heard.pop(fd, None)

    def _ask(self, fd: int, data: bytes) -> None:
        for message in _whole(self._heard.setdefault(fd, frames.Decoder()), data):
            if "op" in message:
                self._asked[fd, message["id"]] = message

    def _say(self, fd: int, data: bytes, when: int) -> list[Said]:
        messages = _whole(self._sent.setdefault(fd, frames.Decoder()), data)
        return [Said(when, m, self._asked.get((fd, m.get("id", 0)))) for m in messages]


def _whole(decoder: frames.Decoder, data: bytes) -> list[dict[str, Any]]:
    decoder.feed(data)
    found = []
    try:
        while (message := decoder.next()) is not None:
            found.append(message)
    except ProtocolError:  # systemd's notifications and the like are no frames
        decoder.__init__()  # type: ignore[misc]
    return found
