"""The directory of one storm: what is in it, its releases and configuration.

daemon/     releases, `current`, taskd.toml, the sockets, what the daemon says
disk/       the daemon's state and logs: a small file system of its own where we may mount one
seen/       what was seen from outside: all that the checker reads
place.json  this, for the processes that the storm starts
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from typing import Any, NamedTuple

import taskd
from contrib.storm.history import EVERY
from contrib.storm.workload import QUEUES

RELEASE = os.path.join(os.path.dirname(__file__), "release")
LOSING = os.path.join(os.path.dirname(__file__), "losing_daemon")

GOOD = tuple(f"r{number}" for number in range(1, 7))

BAD = {
    "bad-import": "raise ImportError('as planned')\n",
    "bad-exit": "import os\nos._exit(3)\n",
    "bad-hang": "import time\ntime.sleep(3600)\n",
    "bad-tasks": "",
}
"""What the app does when it is imported; the last one lacks a task that waits all the while."""

MAX_WORKERS = 24
"""Tasks that run at once, of all queues."""

DEFAULT = 14
"""Of them in the default queue."""

PROVE_TIMEOUT = 15.0
"""Seconds; a start may have its zygote stopped for some of them, and itself as well."""

CONFIG = """\
[app]
release = {current}
python = {python}
modules = ["storm_tasks"]
memory_reserve = "none"
tasks_per_worker = 25
max_workers = {max_workers}

{queues}

[daemon]
prove_timeout = {prove_timeout}
stop_timeout = 20
"""


class Place(NamedTuple):
    """``marker``: a setting that every process of the daemon has in its environment, NAME=value.
    ``has_disk``: state and logs are on a file system of their own. ``lose``: the part of all
    commits whose answer the daemon's store loses."""

    root: str
    marker: str
    has_disk: bool
    lose: float = 0.0

    def path(self, *parts: str) -> str:
        return os.path.join(self.root, *parts)

    def seen(self, name: str) -> str:
        return self.path("seen", name)

    @property
    def sockets(self) -> str:
        return self.path("daemon", "run")

    @property
    def current(self) -> str:
        return self.path("daemon", "current")

    @property
    def script(self) -> str:
        """The program that commands run; the same whatever is deployed."""
        return os.path.join(RELEASE, "command.sh")

    def release(self, name: str) -> str:
        return self.path("daemon", "releases", name)

    def point(self, name: str) -> None:
        """`ln -sfn releases/NAME current`"""
        new = self.current + ".new"
        if os.path.lexists(new):
            os.unlink(new)
        os.symlink(self.release(name), new)
        os.replace(new, self.current)

    def environment(self) -> dict[str, str]:
        """Of the daemon and all its processes."""
        name, value = self.marker.split("=")
        plain, losing = plain_environment(), {}
        if self.lose:
            losing["PYTHONPATH"] = f"{LOSING}:{plain['PYTHONPATH']}"
            losing["STORM_LOSES"] = f"{self.lose} {self.seen('lost')}"
        return (
            plain
            | losing
            | {
                "STATE_DIRECTORY": self.path("disk", "state"),
                "LOGS_DIRECTORY": self.path("disk", "logs"),
                "RUNTIME_DIRECTORY": self.sockets,
                "STORM_EFFECTS": self.seen("effects"),
                "STORM_CLAIMS": self.seen("claims"),
                name: value,
            }
        )

    def tell(self, file_name: str, /, **record: Any) -> None:
        """Append one record to a file in ``seen``, by one write."""
        fd = os.open(
            self.seen(file_name), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644
        )
        try:
            os.write(fd, json.dumps(record).encode() + b"\n")
        finally:
            os.close(fd)

    def unmount(self) -> None:
        if self.has_disk:
            subprocess.run(["umount", "--lazy", self.path("disk")], check=False)


def plain_environment() -> dict[str, str]:
    """Of every process that we start: nothing of another daemon, and the same taskd as ours."""
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("TASKD_", "XDG_", "NOTIFY_", "LISTEN_"))
    }
    for name in ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"):
        clean.pop(name, None)  # a user's start finds compiled files, and buffers what is printed
    source = os.path.dirname(os.path.dirname(taskd.__file__))
    found = [source, *filter(None, clean.get("PYTHONPATH", "").split(":"))]
    return clean | {"PYTHONPATH": ":".join(dict.fromkeys(found))}


def make(root: str, disk_size: int, lose: float = 0.0) -> Place:
    """Lay everything out in ``root``, which must not hold a storm yet."""
    for folder in ("daemon/releases", "daemon/run", "disk", "seen/claims"):
        os.makedirs(os.path.join(root, folder))
    place = Place(root, f"STORM_MARK={uuid.uuid4().hex}", _mount(root, disk_size), lose)
    for name in ("effects", "lost"):
        with open(place.seen(name), "w", encoding="utf-8"):
            pass
    for name in GOOD:
        _release(place, name, "")
    for name, at_import in BAD.items():
        _release(place, name, at_import)
    _drop_guard(place.release("bad-tasks"))
    place.point(GOOD[0])
    places = {"default": DEFAULT, **QUEUES}
    with open(place.path("daemon", "taskd.toml"), "w", encoding="utf-8") as file:
        current, python = json.dumps(place.current), json.dumps(sys.executable)
        file.write(
            CONFIG.format(
                current=current,
                python=python,
                prove_timeout=PROVE_TIMEOUT,
                max_workers=MAX_WORKERS,
                queues="\n".join(f"[queues.{q}]\nconcurrency = {n}" for q, n in places.items()),
            )
        )
    for queue, number in {**places, EVERY: MAX_WORKERS}.items():
        place.tell("places.jsonl", queue=queue, places=number)
    with open(place.path("place.json"), "w", encoding="utf-8") as file:
        json.dump(place._asdict(), file)
    return place


def load(root: str) -> Place:
    """The one that ``make`` made."""
    with open(os.path.join(root, "place.json"), encoding="utf-8") as file:
        return Place(**json.load(file))


def _mount(root: str, size: int) -> bool:
    """A file system of its own for state and logs; False where we may not mount one."""
    options = ["-t", "tmpfs", "-o", f"size={size}", "taskd-storm"]
    mounted = subprocess.run(
        ["mount", *options, os.path.join(root, "disk")], capture_output=True, check=False
    )
    return mounted.returncode == 0


def _release(place: Place, name: str, at_import: str) -> None:
    path = place.release(name)
    shutil.copytree(RELEASE, path, ignore=shutil.ignore_patterns("__pycache__", "*.sh"))
    with open(os.path.join(path, "release_name.py"), "w", encoding="utf-8") as file:
        file.write(f"RELEASE = {name!r}\n{at_import}")


def _drop_guard(path: str) -> None:
    """Take the last task out of the app: one that waits all the while."""
    file_name = os.path.join(path, "storm_tasks.py")
    with open(file_name, encoding="utf-8") as file:
        whole = file.read()
    kept, found, _ = whole.rpartition("\n\n@task\ndef guard")
    assert found, "the app has no task 'guard' to take out"
    with open(file_name, "w", encoding="utf-8") as file:
        file.write(kept + "\n")
