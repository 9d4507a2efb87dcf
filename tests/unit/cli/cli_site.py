"""Releases, a symlink to one of them, and a daemon's verdicts: for the tests of deploys."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_daemon import Daemon

from taskd.errors import DeployRefused

PLAN: dict[str, Any] = {
    "target": "r42",
    "running": [
        {"task": 17, "name": "index", "revision": "r41", "verdict": "finishes", "why": None},
        {"task": 18, "name": "mail", "revision": "r41", "verdict": "moves", "why": None},
        {"task": 9, "name": "index", "revision": "r40", "verdict": "finishes", "why": None},
    ],
    "waiting": [
        {"name": "mail", "version": 2, "shape": "to,text", "count": 120, "verdict": "continues",
         "why": None},
    ],
    "warnings": [],
    "counts": {"finishes": 2, "moves": 1, "continues": 120},
    "on": {"r41": 2, "r40": 1},
}  # fmt: skip

HELD = PLAN | {
    "waiting": [
        *PLAN["waiting"],
        {"name": "gone", "version": 1, "shape": "", "count": 2, "verdict": "held",
         "why": "r42 does not know it"},
    ],
    "warnings": ["index: its steps changed (count went) but its version is still 1"],
    "counts": {"finishes": 2, "moves": 1, "continues": 120, "held": 2},
}  # fmt: skip

ANSWER = {"revision": "r42", "previous": "r41", "pause": 0.0631, "plan": PLAN}
LINE = "r42 serves (r41 drains: 2 running); pause 63 ms\n"
REASON = "r42 does not import: ModuleNotFoundError: No module named 'app'"


def refuse(fields: dict[str, Any]) -> None:
    raise DeployRefused(REASON)


def deploys(daemon: Daemon) -> list[dict[str, Any]]:
    """What was asked for by reload, in order."""
    return [fields for op, fields in daemon.seen if op == "reload"]


class Site:
    """Releases r41 and r42, and ``current``, a symlink to r41, which serves."""

    def __init__(self, base: Path, daemon: Daemon) -> None:
        self.base = base / "srv"
        for name in ("r41", "r42"):
            (self.base / "releases" / name).mkdir(parents=True)
        self.link = self.base / "current"
        self.link.symlink_to(self.release("r41"))
        self.serves = self.release("r41")
        daemon.answers["status"] = lambda fields: {
            "link": str(self.link),
            "symlink": os.path.realpath(self.link),
            "release": str(self.serves),
        }
        daemon.answers["reload"] = self.deployed

    def release(self, name: str) -> Path:
        return self.base / "releases" / name

    def deployed(self, fields: dict[str, Any]) -> dict[str, Any]:
        """A deploy that goes well, of what the symlink names at that moment."""
        assert fields["release"] == os.path.realpath(self.link)
        self.serves = Path(fields["release"])
        return ANSWER

    @property
    def target(self) -> str:
        return os.readlink(self.link)

    @property
    def leftovers(self) -> list[str]:
        return sorted({each.name for each in self.base.iterdir()} - {"current", "releases"})


@pytest.fixture
def site(tmp_path: Path, daemon: Daemon) -> Site:
    return Site(tmp_path, daemon)


Behind = Callable[[dict[str, Any]], dict[str, Any]]


def behind(gate: threading.Event, then: Behind) -> Behind:
    def answer(fields: dict[str, Any]) -> dict[str, Any]:
        assert gate.wait(60)
        return then(fields)

    return answer
