"""What the new image loads in a deploy's pause: by name, since time itself cannot be asserted."""

from __future__ import annotations

import os
import subprocess
import sys

import taskd

LOOK = "import sys; before = set(sys.modules); import {0}; print(*(set(sys.modules) - before))"

NOT_IN_THE_PAUSE = {
    "argparse": 10,
    "asyncio": 44,
    "base64": 1,
    "cronsim": 4,
    "ctypes": 2,
    "dataclasses": 12,
    "difflib": 3,
    "hashlib": 3,
    "hmac": 3,
    "inspect": 9,
    "json": 6,
    "logging": 12,
    "multiprocessing": 20,
    "pathlib": 7,
    "psutil": 23,
    "random": 3,
    "sdnotify": 1,
    "secrets": 4,
    "subprocess": 25,
    "tempfile": 5,
    "tomllib": 5,
    "traceback": 3,
    "unittest": 20,
    "zoneinfo": 9,
}
"""Milliseconds that each would cost every deploy; who needs one imports it when it is needed."""


def loaded_by(module: str) -> set[str]:
    """The modules that come with it in a bare interpreter (without what .pth files load)."""
    places = [os.path.dirname(os.path.dirname(taskd.__file__)), *filter(None, sys.path)]
    ran = subprocess.run(
        [sys.executable, "-S", "-P", "-c", LOOK.format(module)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(places)},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(ran.stdout.split())


def test_the_new_image_loads_nothing_that_it_does_not_need_in_the_pause() -> None:
    found = loaded_by("taskd.handoff.adopt")
    assert "taskd.handoff.load" in found
    assert not found & NOT_IN_THE_PAUSE.keys()


def test_the_new_image_loads_nothing_of_the_other_processes() -> None:
    parts = {name.split(".")[1] for name in loaded_by("taskd.handoff.adopt") if "taskd." in name}
    assert not parts & {"cli", "client", "demo", "testing", "worker", "zygote", "tasks"}
