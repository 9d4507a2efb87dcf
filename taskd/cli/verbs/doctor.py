"""``taskctl doctor``: what is in force on this machine, what is not, and why."""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from taskd.cli.output import jsontext, text
from taskd.cli.output.text import Look
from taskd.cli.verbs import deploy_phase
from taskd.cli.verbs.options import add_json

if TYPE_CHECKING:
    from taskd.client.blocking import Client


def add_doctor(parser: ArgumentParser) -> None:
    """``doctor [--json]``"""
    add_json(parser, "one JSON object: problems, checks and the deploy under way")


def do_doctor(client: Client, args: Namespace) -> None:
    """Exit status 0 also where something is not in force: that is no failure."""
    found = client.status()
    shown = {
        "problems": found.get("problems", []),
        "checks": found.get("checks", []),
        "deploy": found.get("deploy"),
    }
    lines = [jsontext.line(shown)] if args.json else page(shown, time.time(), Look.of())
    print(*lines, sep="\n")


def page(found: Mapping[str, Any], now: float, look: Look) -> list[str]:
    """A line for each check and problem, and the deploy under way; ``now`` in Unix seconds."""
    lines = []
    for check in found["checks"]:
        sign, state = ("ok ", "succeeded") if check["ok"] else ("no ", "held")
        about = f"{text.clean(str(check['name']))}: {text.clean(str(check['text']))}"
        lines.append(f"{text.coloured(sign, state, look)} {about}")
    for each in found["problems"]:
        lines.append(text.coloured(text.clean(f"problem: {each}"), "failed", look))
    if found["deploy"]:
        lines += deploy_phase.page(found["deploy"], now)
    return lines or ["nothing to say: only an operator is told (by control.sock)"]
