"""Debian roots with systemd and Python, made by debootstrap and kept from run to run.

A root is never changed once it is made: machines and layers lie over it. It is kept under
$TASKD_TEST_CACHE (default /var/cache/taskd-tests), by a name that holds a hash of its recipe, so
that another recipe makes another root. Two runs at once make it once: the second waits for the
first one's lock. One that was begun and not finished has another name and is made anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

CACHE = Path(os.environ.get("TASKD_TEST_CACHE") or "/var/cache/taskd-tests")
MIRROR = os.environ.get("TASKD_TEST_MIRROR") or "http://deb.debian.org/debian"

PACKAGES = (
    "systemd-sysv",
    "dbus",
    "dbus-user-session",  # with libpam-systemd: `systemctl --user`
    "libpam-systemd",
    "python3",
    "python3-venv",
)

PREPARE = """
set -e
# Of no use in a test machine, and each costs time at every boot.
systemctl -q mask console-getty.service apt-daily.timer apt-daily-upgrade.timer \
    dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service systemd-update-utmp.service \
    systemd-update-utmp-runlevel.service ldconfig.service
useradd --create-home --shell /bin/bash alice
useradd --create-home --shell /bin/bash mallory
rm -rf /var/cache/apt/archives/*.deb /var/lib/apt/lists/*
"""
"""Run in the new root. Two ordinary users: alice is let in by the tests, mallory never."""


ADD_PACKAGE = """
set -e
printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d  # nothing is started in here
chmod +x /usr/sbin/policy-rc.d
apt-get update -q
DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "$package"
systemctl disable "$package"  # not set up, it would fail at each boot
rm -rf /usr/sbin/policy-rc.d /var/cache/apt/archives/*.deb /var/lib/apt/lists/*
"""
"""Run in a layer over a root: a package with a service of its name."""

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CAGE = ("unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child",
         "--mount-proc")  # fmt: skip


class Debian(NamedTuple):
    """A release of Debian, and what is special about it: its systemd and its Python."""

    suite: str
    systemd: int
    python: str

    def __str__(self) -> str:
        return f"systemd-{self.systemd}"


FLOOR = Debian("bookworm", 252, "3.11")
NEWEST = Debian("trixie", 257, "3.13")
DEBIANS = (FLOOR, NEWEST)


def make_all() -> dict[Debian, Path]:
    """Every root, made at the same time where they are missing. Raises CalledProcessError."""
    with ThreadPoolExecutor(len(DEBIANS)) as pool:
        return dict(zip(DEBIANS, pool.map(make, DEBIANS), strict=True))


def make(debian: Debian) -> Path:
    """The root of ``debian``, from the cache if it is there."""
    root = CACHE / f"{debian.suite}-{_recipe(debian)}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with locked(root.with_suffix(".lock")):
        if not root.exists():
            unfinished = root.with_suffix(".unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            _debootstrap(debian, unfinished)
            unfinished.rename(root)
    return root


def with_package(debian: Debian, package: str) -> Path:
    """The layer that Debian's own package ``package`` is, over the root of ``debian``."""
    root = make(debian)
    recipe = hashlib.sha256(ADD_PACKAGE.encode()).hexdigest()[:12]
    layer = CACHE / f"{root.name}-{package}-{recipe}"
    with locked(layer.with_suffix(".lock")):
        if not layer.exists():
            unfinished = layer.with_suffix(".unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            make_layer([root], unfinished, f"package={package}\n{ADD_PACKAGE}")
            unfinished.rename(layer)
    return layer


def _recipe(debian: Debian) -> str:
    parts = [*debian, *PACKAGES, PREPARE, platform.machine()]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


def _debootstrap(debian: Debian, root: Path) -> None:
    include = f"--include={','.join(PACKAGES)}"
    said("debootstrap", "--variant=minbase", include, debian.suite, str(root), MIRROR)
    said("chroot", str(root), "/bin/sh", "-c", PREPARE)


def make_layer(layers: Sequence[Path], into: Path, script: str) -> None:
    """Run a shell script in the root that ``layers`` are, and keep what it changes in ``into``."""
    work = into.with_name(f"{into.name}.work")
    root = into.with_name(f"{into.name}.root")
    for directory in (into, work, root):
        directory.mkdir(exist_ok=True)
    options = f"lowerdir={':'.join(map(str, layers))},upperdir={into},workdir={work}"
    outside = f'mount -t overlay layer -o "{options}" "{root}" && exec chroot "{root}" sh -ec "$1"'
    ran = subprocess.run(
        [*CAGE, "sh", "-c", outside, "layer", script],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={"PATH": PATH, "LANG": "C.UTF-8", "HOME": "/root"},
    )
    shutil.rmtree(work)
    root.rmdir()
    assert ran.returncode == 0, f"{ran.returncode}\n{ran.stdout}\n{ran.stderr}"


def said(*command: str) -> str:
    """What ``command`` prints. Raises AssertionError with all that it said if it fails."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    ran = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment
    )
    assert ran.returncode == 0, f"{command}: {ran.returncode}\n{ran.stdout}\n{ran.stderr}"
    return ran.stdout


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock ``path``, which the kernel drops with the process."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
