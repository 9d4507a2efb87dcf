"""A disk that loses its power: from recorded writes and syncs to every state it may then be in.

The one place where it stands what a power cut can do. The model is harsher than ext4, XFS and
Btrfs are in their usual modes; where it assumes something, it says so.

Assumed
    * What a sync covered when it returned is there, whole: fsync and fdatasync of a file for its
      data and size, fsync of a directory for its names. Writes that had not returned when the
      sync was called are not covered.
    * A sector (512 bytes) is written whole or not at all. It holds what stood there at the last
      sync or after any write since: writes to one sector are not reordered, since what is written
      back is the page as it is then.
    * Changes of one file's size and holes persist in their order, and data written after such a
      change only with it: the file systems keep a journal for that. Data that belongs to a size
      that did not persist is gone; where the size did and the data did not, there are zeros.
    * A rename replaces in one step.
    * Allocating room (fallocate that keeps the size) changes nothing that is to be read.

Not assumed
    * Any order between two files, between data and names, or between pages of one file: each
      sector that was written since the last sync may hold any of its versions, whatever the
      others hold. A file's own sync does not make its name last (on ext4 it would).
    * Names in a directory that was not synced: any of the changes to a name, and to those it was
      renamed from and to, may be lost from some point on, whatever becomes of other names. A
      directory whose own name is lost is lost with all that was synced in it.

Permissions, times and owners are not modelled.
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from typing import NamedTuple

SECTOR = 512
PAGE = 4096


class Change(NamedTuple):
    """To one file: ``data`` at ``offset``; a new ``size``; or ``hole`` bytes of zeros there."""

    offset: int = 0
    data: bytes = b""
    size: int | None = None
    hole: int = 0


class File:
    """One file, under whatever names: what is on the disk for sure, and what came since."""

    __slots__ = ("changes", "sure")

    def __init__(self) -> None:
        self.sure = bytearray()
        self.changes: list[Change] = []

    def sync(self, covered: int) -> None:
        """The first ``covered`` changes are there for sure."""
        for change in self.changes[:covered]:
            apply(self.sure, change)
        del self.changes[:covered]


class Directory:
    __slots__ = ("changes",)

    def __init__(self) -> None:
        self.changes: list[Rename] = []


Node = File | Directory


class Rename(NamedTuple):
    """Names of one directory that came to stand for something else (None: nothing) at once."""

    names: dict[str, Node | None]


class Disk:
    """The files below ``root``, an empty directory at the beginning.

    ``now``: what processes see, by path below the root. ``sure``: the names that are on the disk.
    """

    def __init__(self) -> None:
        self.top = Directory()
        self.now: dict[str, Node] = {"": self.top}
        self.sure: dict[str, Node] = {"": self.top}

    # ── what processes do ────────────────────────────────────────────────────────────────────

    def create(self, path: str) -> None:
        self._name({path: File()})

    def make_directory(self, path: str) -> None:
        self._name({path: Directory()})

    def remove(self, path: str) -> None:
        self._name({path: None})

    def rename(self, old: str, new: str) -> None:
        assert os.path.dirname(old) == os.path.dirname(new), "a rename to another directory"
        self._name({new: self.now[old], old: None})

    def change(self, path: str, change: Change) -> None:
        self.file(path).changes.append(change)

    def file(self, path: str) -> File:
        found = self.now[path]
        assert isinstance(found, File), f"{path} is no file"
        return found

    def _name(self, names: dict[str, Node | None]) -> None:
        directory = self.now[os.path.dirname(next(iter(names)))]
        assert isinstance(directory, Directory)
        directory.changes.append(Rename(names))
        _take(self.now, names)

    def sync_directory(self, path: str, covered: int) -> None:
        directory = self.now[path]
        assert isinstance(directory, Directory)
        for change in directory.changes[:covered]:
            _take(self.sure, change.names)
        del directory.changes[:covered]

    # ── what is left of it ───────────────────────────────────────────────────────────────────

    def left(self, choice: Choice) -> dict[str, bytes | None]:
        """What a reader finds after a cut: bytes by path, None for a directory."""
        names = dict(self.sure)
        for node in self._directories():
            for change in choice.names(node.changes):
                _take(names, change.names)
        found: dict[str, bytes | None] = {}
        for path in sorted(names):
            parent = os.path.dirname(path)
            if path == "" or (parent in found and found[parent] is None):
                node = names[path]
                found[path] = None if isinstance(node, Directory) else choice.content(node)
        del found[""]
        return found

    def _directories(self) -> list[Directory]:
        """In an order that is the same in every run."""
        named = {id(node): node for _, node in sorted(self.sure.items(), key=lambda i: i[0])}
        named |= {id(node): node for _, node in sorted(self.now.items(), key=lambda i: i[0])}
        return [node for node in named.values() if isinstance(node, Directory)]


def _take(names: dict[str, Node], change: Mapping[str, Node | None]) -> None:
    for path, node in change.items():
        if node is None:
            names.pop(path, None)
        else:
            names[path] = node


def apply(content: bytearray, change: Change) -> None:
    """Do all of ``change``."""
    if change.size is not None:
        del content[change.size :]
        content.extend(bytes(change.size - len(content)))
    elif change.hole:
        end = min(change.offset + change.hole, len(content))
        if end > change.offset:
            content[change.offset : end] = bytes(end - change.offset)
    else:
        end = change.offset + len(change.data)
        content.extend(bytes(max(0, end - len(content))))
        content[change.offset : end] = change.data


class Choice:
    """All that was not synced is lost. What else may be is told by the classes below."""

    def names(self, changes: list[Rename]) -> list[Rename]:
        return []

    def content(self, file: File) -> bytes:
        return bytes(file.sure)


class Kept(Choice):
    """Nothing is lost: what a killed process leaves."""

    def names(self, changes: list[Rename]) -> list[Rename]:
        return changes

    def content(self, file: File) -> bytes:
        return _partly(file, len(file.changes), {}, len(file.changes))


class Sizes(Kept):
    """Names, sizes and holes are there, and no byte that was written since the last sync."""

    def content(self, file: File) -> bytes:
        return _partly(file, len(file.changes), {}, 0)


class Torn(Kept):
    """The last write to each file was under way: its sectors from one on, or up to one, are not
    there; the size may be there already."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def content(self, file: File) -> bytes:
        count = len(file.changes)
        if not count or not file.changes[-1].data:
            return super().content(file)
        last = file.changes[-1]
        sectors = list(_sectors(last))
        at = self._chance.randrange(len(sectors) + 1)
        lost = sectors[at:] if self._chance.random() < 0.5 else sectors[:at]
        size_at = count - self._chance.randrange(2)
        return _partly(file, size_at, dict.fromkeys(lost, count - 1), count)


class Mixed(Choice):
    """Names and sectors as they were at any moments since they were synced.

    For each file one of: lost, kept, as at one moment, or page by page (with here and there a
    page that is torn) as at moments of their own.
    """

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def names(self, changes: list[Rename]) -> list[Rename]:
        kept: list[Rename] = []
        for group in _related(changes):
            kept += group[: self._chance.randrange(len(group) + 1)]
        return sorted(kept, key=lambda change: _place(changes, change))

    def content(self, file: File) -> bytes:
        count = len(file.changes)
        how = self._chance.choice(["lost", "kept", "moment", "pages", "pages"])
        if how == "lost" or not count:
            return bytes(file.sure)
        if how == "kept":
            return _partly(file, count, {}, count)
        if how == "moment":
            moment = self._chance.randrange(count + 1)
            return _partly(file, moment, {}, moment)
        sizes = self._chance.choice([count, self._chance.randrange(count + 1)])
        return _partly(file, sizes, self._moments(file), count)

    def _moments(self, file: File) -> dict[int, int]:
        """For each sector that was written, up to which change its writes are there."""
        count = len(file.changes)
        early = self._chance.choice([0.1, 0.5, 0.9])
        moments: dict[int, int] = {}
        by_page: dict[int, int | None] = {}
        for change in file.changes:
            for sector in _sectors(change):
                page = sector * SECTOR // PAGE
                if page not in by_page:
                    torn = self._chance.random() < 0.1
                    by_page[page] = None if torn else self._moment(count, early)
                moment = by_page[page]
                moments[sector] = self._moment(count, early) if moment is None else moment
        return moments

    def _moment(self, count: int, early: float) -> int:
        way = self._chance.random()
        if way < early / 2:
            return 0
        return count if way < 0.75 else self._chance.randrange(count + 1)


def _place(changes: list[Rename], wanted: Rename) -> int:
    return next(at for at, change in enumerate(changes) if change is wanted)


def _related(changes: list[Rename]) -> list[list[Rename]]:
    """The changes in groups that share no name, each in its order."""
    groups: list[tuple[set[str], list[Rename]]] = []
    for change in changes:
        names, members = set(change.names), []
        for group in [g for g in groups if g[0] & names]:
            groups.remove(group)
            names |= group[0]
            members += group[1]
        members.sort(key=lambda known: _place(changes, known))
        groups.append((names, [*members, change]))
    return [members for _, members in groups]


def _sectors(change: Change) -> range:
    if not change.data:
        return range(0)
    end = change.offset + len(change.data)
    return range(change.offset // SECTOR, -(-end // SECTOR))


def _partly(file: File, moment: int, moments: Mapping[int, int], default: int) -> bytes:
    """What is sure, and of the changes since: sizes and holes up to ``moment``; of each sector the
    writes up to its moment (``default`` where it has none), unless they need a later size or hole.
    """
    content = bytearray(file.sure)
    size = len(content)
    floors: list[tuple[int, int, int]] = []  # (first, last sector, change): nothing later is there
    for at, change in enumerate(file.changes):
        if change.data:
            end = change.offset + len(change.data)
            if at < moment:
                size = max(size, end)
            content.extend(bytes(max(0, end - len(content))))
            _write(content, change, at, moments, default, floors)
        elif at < moment:
            if change.size is not None:
                size = change.size
                del content[change.size :]
            else:
                apply(content, change)
        elif change.size is not None:
            floors.append((change.size // SECTOR, 1 << 60, at))
        else:
            first, last = change.offset // SECTOR, (change.offset + change.hole) // SECTOR
            floors.append((first, last, at))
    del content[size:]
    content.extend(bytes(size - len(content)))
    return bytes(content)


def _write(
    content: bytearray,
    change: Change,
    at: int,
    moments: Mapping[int, int],
    default: int,
    floors: list[tuple[int, int, int]],
) -> None:
    """The sectors of one write that are there; whole runs where nothing tells them apart."""
    if not moments and not floors:
        if at < default:
            content[change.offset : change.offset + len(change.data)] = change.data
        return
    end = change.offset + len(change.data)
    for sector in _sectors(change):
        if any(first <= sector <= last for first, last, _ in floors):
            continue
        if at < moments.get(sector, default):
            start = max(change.offset, sector * SECTOR)
            stop = min(end, (sector + 1) * SECTOR)
            content[start:stop] = change.data[start - change.offset : stop - change.offset]
