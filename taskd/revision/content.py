"""What in a release can be imported, as it was at one moment, and what is another since.

Runs in the zygote alone: it walks the whole directory. An app may write into its release (logs,
caches, a database), which makes it no other release; so only these count: modules in source,
compiled to machine code, or compiled without their source beside them; archives; what the path is
made of (.pth, pyvenv.cfg); and links, but for those to other files. Left out is what Python
compiles by itself, and what version control keeps.
"""

from __future__ import annotations

import contextlib
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


def _entries(release: bytes) -> Iterator[bytes]:
    """What goes while it is looked at (an app's temporary files, say) was not there; however deep
    an app has nested its directories."""
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
            is_code = _is_code(name) or (_is_compiled(name) and name[:-1] not in entries)
            with contextlib.suppress(FileNotFoundError):
                if (line := _line(entry, is_code)) is not None:
                    yield _quoted(prefix + name) + line


def _line(entry: os.DirEntry[bytes], is_code: bool) -> bytes | None:
    """What it is, behind its name; None: it does not count. Raises OSError."""
    if entry.is_symlink():
        counts = is_code or not os.path.isfile(entry.path) or _runs(entry.path)
        return b"\0->%s" % _quoted(os.readlink(entry.path)) if counts else None
    if not is_code:
        return None
    status = entry.stat()
    return b"\0%d\0%d" % (status.st_size, status.st_mtime_ns)


def _is_code(name: bytes) -> bool:
    return os.fsdecode(name).endswith(_CODE) or name == b"pyvenv.cfg"


def _is_compiled(name: bytes) -> bool:
    """Python imports it where the source is not beside it. One with a tag (tasks.cpython-313.pyc)
    is of a cache that was put into the release, and is not imported by its name."""
    return name.endswith(b".pyc") and name.count(b".") == 1


def _runs(path: bytes) -> bool:
    return os.access(path, os.X_OK)


def _quoted(name: bytes) -> bytes:
    """On one line."""
    return name.replace(b"\n", b"\\n").replace(b"\r", b"\\r")
