"""What in a release can be imported, as it was at one moment, and what is another since.

Runs in the zygote alone: it walks the whole directory. An app may write into its release (logs,
caches, a database), which makes it no other release; so only these count: modules in source or
compiled to machine code, archives, what the path is made of (.pth, pyvenv.cfg), and links, but for
those to other files. Left out is what Python compiles by itself, and what version control keeps.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator

NAMED = 10
"""Files named of those that have changed."""

_CODE = (".py", ".so", ".pth", ".zip", ".egg", ".whl")
_NOT_CONTENT = {"__pycache__", ".git"}


class Content:
    """``fingerprint``: a hash of the names, sizes and times, 16 hexadecimal digits."""

    __slots__ = ("_lines", "fingerprint")

    def __init__(self, release: str) -> None:
        """As it is now. Raises OSError."""
        import hashlib  # 3 ms, and never needed in the master

        raw = b"".join(line + b"\n" for line in sorted(_entries(os.fsencode(release))))
        self.fingerprint = hashlib.blake2b(raw, digest_size=8).hexdigest()
        self._lines = zlib.compress(raw, 1)  # an environment has thousands, kept for long

    def changed(self, now: Content) -> list[str]:
        """The first files that are new, gone or another; none if all is the same."""
        before, after = ({*zlib.decompress(each._lines).splitlines()} for each in (self, now))
        names = {line.partition(b"\0")[0] for line in before ^ after}
        return [os.fsdecode(name).encode(errors="backslashreplace").decode()
                for name in sorted(names)[:NAMED]]  # fmt: skip


def _entries(directory: bytes, prefix: bytes = b"") -> Iterator[bytes]:
    with os.scandir(directory) as found:
        entries = list(found)
    for entry in entries:
        name = prefix + entry.name
        if entry.is_symlink():
            if _is_code(entry.name) or not os.path.isfile(entry.path) or _runs(entry.path):
                yield b"%s\0->%s" % (_quoted(name), _quoted(os.readlink(entry.path)))
        elif entry.is_dir():
            if os.fsdecode(entry.name) not in _NOT_CONTENT:
                yield from _entries(entry.path, name + b"/")
        elif _is_code(entry.name):
            status = entry.stat()
            yield b"%s\0%d\0%d" % (_quoted(name), status.st_size, status.st_mtime_ns)


def _is_code(name: bytes) -> bool:
    return os.fsdecode(name).endswith(_CODE) or name == b"pyvenv.cfg"


def _runs(path: bytes) -> bool:
    return os.access(path, os.X_OK)


def _quoted(name: bytes) -> bytes:
    """On one line."""
    return name.replace(b"\n", b"\\n").replace(b"\r", b"\\r")
