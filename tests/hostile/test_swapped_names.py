"""A name under /tmp that another user plants, or swaps all the time: it is ours, or is refused."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.users import STRANGER, Beside, as_user
from support.waiting import eventually

from taskd import paths
from taskd.errors import ConfigError

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")


@pytest.fixture
def user() -> Iterator[int]:
    """One that nobody else is, not even another run of these tests; its name in /tmp goes again."""
    uid = 1_000_000 + os.getpid()
    yield uid
    name = f"/tmp/taskd-{uid}"
    if os.path.islink(name):
        os.unlink(name)
    elif os.path.isdir(name):
        os.rmdir(name)


@needs_root
def test_a_private_directory_under_tmp_is_ours_or_refused_whatever_others_do_to_its_name(
    user: int, tmp_path: Path
) -> None:
    """Another user makes and removes links of that name all the time, to a directory of ours."""
    target = tmp_path / "target"
    target.mkdir(mode=0o750)
    os.chmod(target, 0o750)
    os.chown(target, user, user)
    for at in (tmp_path, *tmp_path.parents):
        if at != Path("/tmp") and at.is_relative_to("/tmp"):
            os.chmod(at, 0o755)
    name = f"/tmp/taskd-{user}"

    def swap(tell: Callable[[str], None]) -> None:
        count = 0
        while True:
            try:
                os.symlink(target, name)
                os.unlink(name)
                for _ in range(20):  # the name is free at least as long as it is taken
                    os.path.lexists(name)
            except OSError:
                continue
            count += 1
            if count % 50 == 0:
                tell("swapped")

    def make() -> tuple[int, int]:
        base = os.path.join(target, "own")
        made = refused = 0
        while min(made, refused) < 20 and made + refused < 20_000:
            try:
                paths.ensure(paths.Places(f"{base}/state", name, f"{base}/logs"))
            except ConfigError:
                refused += 1
                continue
            made += 1
            is_real = os.lstat(name)
            assert stat.S_ISDIR(is_real.st_mode)
            assert (is_real.st_uid, stat.S_IMODE(is_real.st_mode)) == (user, 0o700)
            os.rmdir(name)
        return made, refused

    with Beside(STRANGER, [], swap) as swapper:
        eventually(lambda: swapper.told, "it swaps")
        made, refused = as_user(user, [], make)
    assert made >= 20
    assert stat.S_IMODE(target.stat().st_mode) == 0o750, "a mode was set through a link"
    assert refused + made > 20


@needs_root
def test_a_client_does_not_follow_a_link_to_anothers_sockets(user: int, tmp_path: Path) -> None:
    name = f"/tmp/taskd-{user}"
    os.symlink(tmp_path, name)
    os.lchown(name, STRANGER, -1)
    assert not paths.is_own(name, user)
    os.unlink(name)
    os.mkdir(name, 0o700)
    os.chown(name, STRANGER, -1)
    assert not paths.is_own(name, user)
    os.chown(name, user, -1)
    assert paths.is_own(name, user)
