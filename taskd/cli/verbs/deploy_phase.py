"""The deploy that is under way, as ``status`` and ``doctor`` show it. Pure.

The answer of ``status`` has it under "deploy": null, or {"phase", "since": Unix seconds,
"release": path, "waits_for": [text…]}. A daemon of 0.2 leaves it out.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from taskd.cli.output import text

_WIDTH = 80

_WHERE_TO_LOOK = {
    "proving": "the release's process imports the app, within [daemon] prove_timeout; what it "
    "prints is in the daemon's log",
    "planning": "a worker of the release runs the migrations of tasks that wait or run; what it "
    "prints is in the daemon's log",
    "trying": "the release's own taskd adopts a copy of the daemon's state; what it prints is in "
    "the daemon's log",
    "hooking": "the command of [hooks] before runs, within [hooks] timeout",
    "quiescing": "workers and claims that have begun come to their end",
    "emptying": "requests that have been read are answered",
}


def line(deploy: Mapping[str, Any], now: float) -> str:
    """One line of 80 columns at most; ``now`` in Unix seconds."""
    waits_for = ", ".join(deploy["waits_for"])
    said = f"{_heading(deploy, now)}; waits for {waits_for}" if waits_for else _heading(deploy, now)
    return text.cut(text.clean(said), _WIDTH)


def page(deploy: Mapping[str, Any], now: float) -> list[str]:
    """With each thing that it waits for, and where to look if the deploy is stuck."""
    hint = _WHERE_TO_LOOK.get(deploy["phase"])
    return [
        text.clean(f"{_heading(deploy, now)} ({deploy['release']})"),
        *(text.clean(f"  waits for {each}") for each in deploy["waits_for"]),
        *[f"  in this phase {hint}"] * (hint is not None),
        "  each phase has a deadline: then the deploy is refused, and `taskctl status` says why",
    ]


def _heading(deploy: Mapping[str, Any], now: float) -> str:
    name = os.path.basename(deploy["release"]) or deploy["release"]
    return f"deploy of {name}: {deploy['phase']} for {text.duration(now - deploy['since'])}"
