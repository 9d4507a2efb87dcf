"""``taskctl doctor``: what is in force on this machine, what is not, and why."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from taskd.cli.output import jsontext, text
from taskd.cli.output.text import Look
from taskd.cli.verbs.options import add_json

if TYPE_CHECKING:
    from taskd.client.blocking import Client


def add_doctor(parser: ArgumentParser) -> None:
    """``doctor [--json]``"""
    add_json(parser, "one JSON object: problems and checks")


def do_doctor(client: Client, args: Namespace) -> None:
    """Exit status 0 also where something is not in force: that is no failure."""
    found = client.status()
    shown = {name: found.get(name, []) for name in ("problems", "checks")}
    look = Look.of(sys.stdout, os.environ)
    print(*[jsontext.line(shown)] if args.json else page(shown, look), sep="\n")


def page(found: Mapping[str, Any], look: Look) -> list[str]:
    """One line for each check, and one for each problem."""
    lines = []
    for check in found["checks"]:
        sign, state = ("ok ", "succeeded") if check["ok"] else ("no ", "held")
        about = f"{text.clean(str(check['name']))}: {text.clean(str(check['text']))}"
        lines.append(f"{text.coloured(sign, state, look)} {about}")
    for each in found["problems"]:
        lines.append(text.coloured(text.clean(f"problem: {each}"), "failed", look))
    return lines or ["nothing to say: only an operator is told (by control.sock)"]
