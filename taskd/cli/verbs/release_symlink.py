"""The symlink that names the release: switched in one step, and switched back.

Runs in taskctl. A reader sees the old target or the new one, never none and never half of it:
another symlink is made beside it and renamed over it. A change by another program is never
undone. Two taskctl at once agree by a lock on the symlink's directory, which the kernel drops with
the process.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from taskd.errors import Error
from taskd.posix import files


class Symlink:
    """A symlink that is to be switched.

    ``path``: where it is. ``before``: what it held when this object was made. ``ours``: what
    ``switch`` has written; before that the same as ``before``.
    """

    __slots__ = ("before", "ours", "path")

    def __init__(self, path: str) -> None:
        """Raises Error if there is no symlink at ``path``."""
        self.path = path
        try:
            self.before = self.ours = os.readlink(path)
        except FileNotFoundError:
            raise Error(f"there is no symlink at {path}, which [app] release names") from None
        except OSError as error:
            why = "it is not a symlink" if os.path.lexists(path) else error.strerror
            raise Error(
                f"cannot switch {path}, which [app] release names: {why}; it is as it was"
            ) from None

    def switch(self, release: str) -> None:
        """Let it point to ``release``, a real path; one that leads there already stays as it is.

        It is relative if it was, unless the two have no directory in common but the root.
        Raises Error if it cannot be switched; then it is as it was.
        """
        if os.path.realpath(self.path) == release:
            return
        home = os.path.realpath(os.path.dirname(self.path))
        is_absolute = os.path.isabs(self.before) or os.path.commonpath([home, release]) == "/"
        self.ours = release if is_absolute else os.path.relpath(release, home)
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


@contextmanager
def alone(path: str, wait: bool = False) -> Iterator[bool]:
    """Whether no other taskctl is about to switch ``path``; during the block none begins to.

    ``wait``: until the other one is done. Where the directory cannot be locked, none is waited for.
    """
    try:
        directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        yield True
        return
    try:
        is_alone = True  # also in a file system without locks
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            is_alone = not isinstance(error, BlockingIOError)
        yield is_alone
    finally:
        os.close(directory)


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
