"""The importable files of a release at one moment, and which of them have changed since.

Runs in the zygote alone: it walks the whole directory. An app may write into its release (logs,
caches, a database), which does not make it another release; so only these count: modules in source,
compiled to machine code, or compiled without their source beside them; archives; files that make
the import path (.pth, pyvenv.cfg); and links, except links to data files. Python's own caches of
compiled modules and version control's files do not count.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Iterator

NAMED = 10
"""How many changed files are named."""

_CODE = (".py", ".so", ".pth", ".zip", ".egg", ".whl")
_NOT_CONTENT = {"__pycache__", ".git"}


class Content:
    """``fingerprint``: a hash of the names, sizes and times, 16 hexadecimal digits."""

    __slots__ = ("_lines", "fingerprint")

    def __init__(self, release: str) -> None:
        """The release's content now. Raises OSError."""
        import hashlib  # 3 ms, and never needed in the master

        raw = b"".join(line + b"\n" for line in sorted(_entries(os.fsencode(release))))
        self.fingerprint = hashlib.blake2b(raw, digest_size=8).hexdigest()
        self._lines = zlib.compress(raw, 1)  # an environment has thousands, kept for long

    def changed(self, now: Content) -> list[str]:
        """The first NAMED files that are new, gone or changed."""
        before, after = ({*zlib.decompress(each._lines).splitlines()} for each in (self, now))
        names = {line.partition(b"\0")[0] for line in before ^ after}
        return [os.fsdecode(name).encode(errors="backslashreplace").decode()
                for name in sorted(names)[:NAMED]]  # fmt: skip


def _entries(release: bytes) -> Iterator[bytes]:
    """A line for each file that counts: its name and what ``_line`` says of it. A file that
    disappears meanwhile (an app's temporary file) does not count. Walks without recursion, since an
    app may nest directories to any depth."""
    waiting = [b""]
    while waiting:
        prefix = waiting.pop()
        try:
            with os.scandir(os.path.join(release, prefix).rstrip(b"/") or b"/") as found:
                entries = {entry.name: entry for entry in found}
        except (FileNotFoundError, NotADirectoryError):
            if not prefix:
                raise
            continue
        for name, entry in entries.items():
            if entry.is_dir(follow_symlinks=False):
                if os.fsdecode(name) not in _NOT_CONTENT:
                    waiting.append(prefix + name + b"/")
                continue
            is_code = os.fsdecode(name).endswith(_CODE) or name == b"pyvenv.cfg"
            if name.endswith(b".pyc") and name.count(b".") == 1 and name[:-1] not in entries:
                is_code = True  # no source beside it; with a tag (tasks.cpython-313.pyc), a cache
            with contextlib.suppress(FileNotFoundError):
                if (line := _line(entry, is_code)) is not None:
                    yield _quoted(prefix + name) + line


def _line(entry: os.DirEntry[bytes], is_code: bool) -> bytes | None:
    """A link's target, or a file's size and time; None: it does not count. Raises OSError."""
    if entry.is_symlink():
        counts = is_code or not os.path.isfile(entry.path) or os.access(entry.path, os.X_OK)
        return b"\0->%s" % _quoted(os.readlink(entry.path)) if counts else None
    if not is_code:
        return None
    status = entry.stat()
    return b"\0%d\0%d" % (status.st_size, status.st_mtime_ns)


def _quoted(name: bytes) -> bytes:
    """The name on one line."""
    return name.replace(b"\n", b"\\n").replace(b"\r", b"\\r")
