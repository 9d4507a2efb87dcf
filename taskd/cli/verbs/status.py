"""``taskctl status``: a short page, or one JSON object."""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from taskd.cli.output import jsontext, text
from taskd.cli.output.text import Column, Look
from taskd.cli.verbs import deploy_phase
from taskd.cli.verbs.options import add_json

if TYPE_CHECKING:
    from taskd.client.blocking import Client

_QUEUE = (
    Column("QUEUE"),
    Column("RUNNING", right=True),
    Column("QUEUED", right=True),
    Column("CONCURRENCY", right=True),
)


def add_status(parser: ArgumentParser) -> None:
    """``status [--json]``"""
    add_json(parser, "one JSON object")


def do_status(client: Client, args: Namespace) -> None:
    found = client.status()
    if args.json:
        shown = jsontext.only(jsontext.STATUS, found) | {"deploy": found.get("deploy")}
        print(jsontext.line(shown))
    else:
        print(*page(found, time.time(), Look.of()), sep="\n")


def page(status: Mapping[str, Any], now: float, look: Look) -> list[str]:
    """The page's lines; ``now`` in Unix seconds."""
    lines = [
        f"taskd {text.clean(str(status.get('taskd', '')))}, pid {status['pid']}",
        f"revision {text.clean(str(status['revision']))}: {text.clean(str(status['release']))}",
    ]
    target = status["symlink"]
    if target and target != status["release"]:
        link = text.clean(status.get("link") or "the symlink")
        lines.append(f"{link} names another release: {text.clean(target)} (taskctl reload)")
    if status.get("deploy"):
        lines.append(deploy_phase.line(status["deploy"], now))
    if status.get("note"):
        lines.append(text.clean(str(status["note"])))
    lines += [text.clean(f"problem: {each}") for each in status.get("problems", ())]
    counts = [
        text.coloured(f"{number} {state}", state, look)
        for state in text.COLOURS
        if (number := status["states"].get(state))
    ]
    queues = [
        [name, str(queue["running"]), str(queue["queued"]), str(queue["concurrency"])]
        for name, queue in sorted(status["queues"].items())
    ]
    return [
        *lines,
        "",
        f"tasks: {', '.join(counts) or 'none'}",
        "",
        *text.table(_QUEUE, queues, look.width),
        *(["and more queues"] if status.get("more_queues") else []),
    ]
