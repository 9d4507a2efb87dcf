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
    """Exit status 0 whatever is found: what is not in force is no failure."""
    found = client.status()
    shown = {"problems": found.get("problems", []), "checks": found.get("checks", [])}
    if args.json:
        print(jsontext.line(shown))
        return
    for line in page(shown, Look.of(sys.stdout, os.environ)):
        print(line)


def page(found: Mapping[str, Any], look: Look) -> list[str]:
    """One line for each check, and one for what does not go on just now."""
    lines = [_check(check, look) for check in found["checks"]]
    lines += [text.coloured(text.clean(f"problem: {each}"), "failed", look)
              for each in found["problems"]]  # fmt: skip
    return lines or ["nothing to say: only an operator is told (by control.sock)"]


def _check(check: Mapping[str, Any], look: Look) -> str:
    state = "succeeded" if check["ok"] else "held"
    sign = text.coloured("ok " if check["ok"] else "no ", state, look)
    return f"{sign} {text.clean(str(check['name']))}: {text.clean(str(check['text']))}"
