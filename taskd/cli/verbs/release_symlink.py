"""The symlink that names the release: switched in one step, and switched back.

Runs in taskctl. A reader sees the old target or the new one, never none and never half of it:
another symlink is made beside it and renamed over it. Nobody else's change is undone. Two
taskctl at once agree by a lock on the symlink's directory, which the kernel drops with the
process.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from taskd.errors import Error
from taskd.posix import files


class Symlink:
    """One symlink, as it was when this was made.

    ``path``: where it is. ``before``: what it held then. ``ours``: what ``switch`` put there,
    until then the same as ``before``.
    """

    __slots__ = ("before", "ours", "path")

    def __init__(self, path: str) -> None:
        """Raises Error if there is no symlink at ``path``."""
        self.path = path
        self.before = self.ours = _read(path)

    def switch(self, release: str) -> None:
        """Let it point to ``release``, a real path; one that leads there already stays as it is.

        Raises Error if it cannot; then it is as it was.
        """
        if os.path.realpath(self.path) == release:
            return
        self.ours = self._target(release)
        try:
            _replace(self.path, self.ours)
        except OSError as error:
            self.ours = self.before
            raise Error(
                f"cannot switch {self.path} to {release}: {error.strerror} (its directory must be "
                "writable for you); it is as it was"
            ) from None

    @property
    def is_switched(self) -> bool:
        """Whether it holds what ``switch`` put there, and held something else before."""
        return self.ours != self.before and self._now() == self.ours

    def back(self) -> str:
        """Let it point where it did before, if it ``is_switched``; what became of it, in words."""
        if self.is_switched:
            try:
                _replace(self.path, self.before)
            except OSError as error:
                return f"{self.path} still points to {self.ours}: {error.strerror}"
        if self._now() != self.before:
            return f"{self.path} was changed by someone else meanwhile, and is left so"
        return f"{self.path} points to {self.before} again"

    def _now(self) -> str | None:
        try:
            return os.readlink(self.path)
        except OSError:
            return None

    def _target(self, release: str) -> str:
        """Relative if it was, unless the two have no directory in common but the root."""
        home = os.path.realpath(os.path.dirname(self.path))
        if os.path.isabs(self.before) or os.path.commonpath([home, release]) == "/":
            return release
        return os.path.relpath(release, home)


@contextmanager
def alone(path: str, wait: bool = False) -> Iterator[bool]:
    """Whether no other taskctl is about to switch ``path``; during the block none begins to.

    ``wait``: until the other one is done. Where the directory cannot be locked, nobody waits.
    """
    try:
        directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        yield True
        return
    try:
        yield _lock(directory, wait)
    finally:
        os.close(directory)


def _lock(directory: int, wait: bool) -> bool:
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def _read(path: str) -> str:
    try:
        return os.readlink(path)
    except FileNotFoundError:
        raise Error(f"there is no symlink at {path}, which [app] release names") from None
    except OSError as error:
        why = "it is not a symlink" if os.path.lexists(path) else error.strerror
        raise Error(
            f"cannot switch {path}, which [app] release names: {why}; it is as it was"
        ) from None


def _replace(path: str, target: str) -> None:
    """Put a symlink to ``target`` in place of the one at ``path``."""
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.{os.getpid()}.new")
    with suppress(FileNotFoundError):
        os.unlink(temporary)  # of a process that had our id and was killed
    try:
        os.symlink(target, temporary)
        os.rename(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    with suppress(OSError):  # a directory that one may write to and not read
        files.sync_directory(folder)
