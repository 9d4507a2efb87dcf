"""``taskctl revisions`` and ``taskctl reload``."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Any

from taskd.cli import jsontext, text
from taskd.cli.options import add_json
from taskd.cli.text import Column, Look

if TYPE_CHECKING:
    from taskd.client.blocking import Client

_REVISION = (
    Column("REVISION"),
    Column("STATE"),
    Column("WORKERS", right=True),
    Column("RUNNING", right=True),
    Column("WAITING", right=True),
    Column("PATH"),
)


def add_revisions(parser: ArgumentParser) -> None:
    """``revisions [--json]``"""
    add_json(parser, "one JSON object a line")
    parser.set_defaults(verb_runs=_revisions)


def add_reload(parser: ArgumentParser) -> None:
    """``reload``"""
    parser.set_defaults(verb_runs=_reload)


def _revisions(client: Client, args: Namespace) -> None:
    found = client.revisions()
    if args.json:
        for revision in found:
            print(jsontext.line(jsontext.only(jsontext.REVISION, revision)))
        return
    rows = [[str(revision[name]) for name in _SHOWN] for revision in found]
    for line in text.table(_REVISION, rows, Look.of(sys.stdout, os.environ).width):
        print(line)


_SHOWN = ("revision", "state", "workers", "running", "waiting", "path")


def _reload(client: Client, args: Namespace) -> None:
    print(deployed(client.reload()))


def deployed(answer: dict[str, Any]) -> str:
    """What a deploy that went well is told: the reply of ``reload`` as a sentence."""
    before = answer["previous"]
    instead = f" instead of {text.clean(before)}" if before else ""
    pause = f"{answer['pause'] * 1000:.0f} ms"
    return f"{text.clean(answer['revision'])} serves{instead}; clients waited {pause}"
