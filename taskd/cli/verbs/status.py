"""``taskctl status`` and ``taskctl doctor``: how the daemon stands, and what is in force here.

The answer of ``status`` has the deploy that is under way under "deploy": null, or {"phase",
"since": Unix seconds, "release": path, "waits_for": [text…]}. A daemon of 0.2 leaves it out.
"""

from __future__ import annotations

import os
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from taskd.cli.output import jsontext, text
from taskd.cli.output.text import Column, Look
from taskd.cli.verbs.options import add_json

if TYPE_CHECKING:
    from taskd.client.blocking import Client

_QUEUE = (
    Column("QUEUE"),
    Column("RUNNING", right=True),
    Column("QUEUED", right=True),
    Column("CONCURRENCY", right=True),
)

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


def add_status(parser: ArgumentParser) -> None:
    """``status [--json]``"""
    add_json(parser, "one JSON object")


def do_status(client: Client, args: Namespace) -> None:
    found = client.status()
    shown = jsontext.only(jsontext.STATUS, found) | {
        name: found.get(name) for name in ("deploy", "paused")
    }
    lines = [jsontext.line(shown)] if args.json else _status_page(found, time.time(), Look.of())
    print(*lines, sep="\n")


def _status_page(status: Mapping[str, Any], now: float, look: Look) -> list[str]:
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
        lines.append(_deploy_line(status["deploy"], now))
    if status.get("note"):
        lines.append(text.clean(str(status["note"])))
    lines += _paused_lines(status)
    lines += [
        text.clean(str(queue["said"]["text"]))
        for queue in status["queues"].values()
        if queue.get("said")
    ]
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
        "paused": found.get("paused", []),
    }
    lines = [jsontext.line(shown)] if args.json else _doctor_page(shown, time.time(), Look.of())
    print(*lines, sep="\n")


def _doctor_page(found: Mapping[str, Any], now: float, look: Look) -> list[str]:
    """A line for each check and problem, and the deploy under way; ``now`` in Unix seconds."""
    lines = []
    for check in found["checks"]:
        sign, state = ("ok ", "succeeded") if check["ok"] else ("no ", "held")
        about = f"{text.clean(str(check['name']))}: {text.clean(str(check['text']))}"
        lines.append(f"{text.coloured(sign, state, look)} {about}")
    lines += [
        text.coloured(text.clean(f"problem: {each}"), "failed", look) for each in found["problems"]
    ]
    lines += _paused_lines(found)
    if found["deploy"]:
        lines += _deploy_page(found["deploy"], now)
    return lines or ["nothing to say: only an operator is told (by control.sock)"]


def _paused_lines(status: Mapping[str, Any]) -> list[str]:
    return [text.clean(f"{each['text']} ({each['resume']})") for each in status.get("paused", ())]


def _deploy_line(deploy: Mapping[str, Any], now: float) -> str:
    """One line of 80 columns at most; ``now`` in Unix seconds."""
    waits_for = ", ".join(deploy["waits_for"])
    said = f"{_heading(deploy, now)}; waits for {waits_for}" if waits_for else _heading(deploy, now)
    return text.cut(text.clean(said), 80)


def _deploy_page(deploy: Mapping[str, Any], now: float) -> list[str]:
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
