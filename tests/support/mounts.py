"""A daemon whose directories lie on small file systems of their own, which a test fills or breaks.

They are real: tmpfs, ext4 in a file, a read-only bind mount. Whatever a test does, none of them is
left mounted.
"""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from support.daemon import Daemon
from support.waiting import eventually

MIB = 1024 * 1024
C = os.environ | {"LC_ALL": "C"}


class Mounted(Daemon):
    """``folder`` in what follows: "state", "logs" or "run" of this daemon."""

    def __init__(self, **sections: Any) -> None:
        super().__init__(**sections)
        self._mounts: list[str] = []

    def small(self, folder: str, size: int = 2 * MIB) -> None:
        """An empty tmpfs of ``size`` bytes there."""
        self._mount("-t", "tmpfs", "-o", f"size={size},mode=755", "taskd-test", self.path(folder))

    def ext4(self, folder: str, size: int = 16 * MIB) -> str:
        """An ext4 in a file there, read-only after its first error; the file's path.

        The second time with what the last one held: a copy, for the mount of the same file would
        be the same file system, and read-only still, while a container that was booted meanwhile
        holds the old mount among its own.
        """
        images = sorted(glob.glob(self.path(f"{folder}.ext4.*")))
        image = self.path(f"{folder}.ext4.{len(images)}")
        if images:
            shutil.copyfile(images[-1], image)
        else:
            with open(image, "wb") as file:
                file.truncate(size)
            _run("mkfs.ext4", "-q", image)
        self._mount("-o", "loop,errors=remount-ro", image, self.path(folder))
        return image

    def fill(self, folder: str) -> None:
        """Write until not a byte finds room any more."""
        with open(self.path(folder, "ballast"), "ab", buffering=0) as file:
            for size in (65536, 4096, 1):
                try:
                    while file.write(bytes(size)):
                        pass
                except OSError:
                    continue

    def make_room(self, folder: str) -> None:
        os.unlink(self.path(folder, "ballast"))

    def read_only(self, folder: str) -> None:
        """Nothing can be created there any more; what is open goes on being written."""
        path = self.path(folder)
        self._mount("--bind", path, path)
        _run("mount", "-o", "remount,bind,ro", path)

    def turn_read_only(self, folder: str) -> None:
        """What the kernel does to an ext4 that meets an error: open files included."""
        device = subprocess.check_output(
            ["findmnt", "--noheadings", "--output", "SOURCE", self.path(folder)], text=True
        )
        trigger = f"/sys/fs/ext4/{os.path.basename(device.strip())}/trigger_fs_error"
        with open(trigger, "w", encoding="ascii") as file:
            file.write("a test")

    @contextmanager
    def frozen(self, folder: str) -> Iterator[None]:
        """Whoever writes there hangs in the kernel meanwhile, as on a disk that does not answer."""
        _run("fsfreeze", "--freeze", self.path(folder))
        try:
            yield
        finally:
            _run("fsfreeze", "--unfreeze", self.path(folder))

    def unmount(self, folder: str) -> None:
        """The last mount on it goes."""
        path = self.path(folder)
        eventually(lambda: _is_unmounted(path), f"nobody is in {path}")
        self._mounts.remove(path)

    def _mount(self, *arguments: str) -> None:
        done = subprocess.run(["mount", *arguments], capture_output=True, text=True)
        if done.returncode != 0:
            pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")
        self._mounts.append(arguments[-1])

    def clean_up(self) -> None:
        self.kill_everything()
        while self._mounts:
            _run("umount", "--lazy", self._mounts.pop())
        super().clean_up()


def _is_unmounted(path: str) -> bool:
    """Not yet, while a process that is dying, or looks for a file there, is in it."""
    done = subprocess.run(["umount", path], capture_output=True, text=True, env=C)
    assert done.returncode == 0 or "busy" in done.stderr, done.stderr
    return done.returncode == 0


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
