"""The table of mounts, and checking a directory without hanging on a dead file server.

Used by the master and by workers. A user's path may lead to a file server that is dead: a call with
that path waits for ever. So the table of mounts is read first, which never waits.

Source: proc_pid_mountinfo(5).
"""

from __future__ import annotations

import errno
import os
import stat

from taskd.record import Record

_HERE = frozenset(
    ("bcachefs", "btrfs", "erofs", "exfat", "ext2", "ext3", "ext4", "f2fs", "iso9660", "jfs",
     "overlay", "ramfs", "reiserfs", "squashfs", "tmpfs", "vfat", "xfs", "zfs")
)  # fmt: skip
"""File systems that need no other machine or process to answer."""

_ESCAPED = {r"\040": " ", r"\011": "\t", r"\012": "\n", r"\134": "\\"}  # this one last


class Mount(Record):
    """One mount. ``root``: the directory of the file system that is mounted; ``at``: where."""

    root: str
    at: str
    options: frozenset[str]
    kind: str
    super_options: frozenset[str]


def table() -> list[Mount]:
    """All mounts that this process sees, in the order in which they were made. Raises OSError."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return [_mount(line) for line in file]


def _mount(line: str) -> Mount:
    before, _, after = line.rstrip("\n").partition(" - ")
    words, kind = before.split(" "), after.split(" ")
    return Mount(
        root=_plain(words[3]),
        at=_plain(words[4]),
        options=frozenset(words[5].split(",")),
        kind=kind[0],
        super_options=frozenset(kind[-1].split(",")),
    )


def _plain(text: str) -> str:
    if "\\" in text:
        for escaped, character in _ESCAPED.items():
            text = text.replace(escaped, character)
    return text


def on_the_way(path: str, mounts: list[Mount]) -> list[Mount]:
    """The mounts that an absolute path goes through, the innermost last; of two at one place, only
    the later, which hides the other."""
    found = {each.at: each for each in mounts if f"{path}/".startswith(each.at.rstrip("/") + "/")}
    return sorted(found.values(), key=lambda each: len(each.at))


def why_not_entered(path: str) -> OSError | None:
    """The error of making ``path`` the working directory of this process; None if it can be, or if
    that cannot be told without following a link or asking another machine."""
    try:
        mounts = on_the_way(path, table())
    except OSError:
        return None
    if path != os.path.normpath(path) or not os.path.isabs(path):
        return None
    if any(each.kind not in _HERE for each in mounts):
        return None
    at = ""
    for name in path.split("/"):
        at = f"{at}{name}/" if at else "/"
        try:
            found = os.lstat(at.rstrip("/") or "/")
        except OSError as error:
            return error
        if stat.S_ISLNK(found.st_mode):
            return None
        if not stat.S_ISDIR(found.st_mode):
            return NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
    if not os.access(path, os.X_OK):
        return PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
    return None
