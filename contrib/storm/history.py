"""What was seen from outside, read back from the files of one storm.

All of it was written by the storm's own processes: what clients asked and were told, what the
tasks did (``release/witness.py``), what a public client fetched afterwards. Nothing here knows how
taskd works.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from typing import Any, NamedTuple

Record = dict[str, Any]

EVERY = "*"
"""In place of a queue: all of them together."""


class Line(NamedTuple):
    """One thing that a task did."""

    at: int
    task: int
    attempt: int
    pid: int
    release: str
    event: str
    what: str
    value: str


class Call(NamedTuple):
    """One call of submit. ``task``: the id that was acknowledged; None if none was."""

    tag: str
    name: str
    args: Record
    key: str | None
    task: int | None


class Cancel(NamedTuple):
    """One cancel that was asked for; ``at`` and ``was`` are None without an answer."""

    task: int
    at: int | None
    was: str | None


class Followed(NamedTuple):
    """One stream of events as it came while the storm raged."""

    tasks: list[int]
    events: list[Record]


class Life(NamedTuple):
    """One run of the daemon, on the monotonic clock, and its exit status; negative: a signal."""

    began: float
    ended: float
    status: int


class History(NamedTuple):
    """Everything. ``tasks`` and ``events``: as the daemon tells them after the storm. ``refused``:
    submissions that were, {tag, code, why}. ``held``: {task, why} as the operator found them.
    ``lives``: of the daemon, but for the last, which was stopped. ``full``: when the disk was,
    from and to. ``stops``: when it was told to stop, to be started again. ``kills``: of a zygote,
    or of all. ``places``: how many tasks of a queue may run at once. ``crashes``: last lines of
    tracebacks that ended a process. ``findings``: what the storm itself found wrong, such as a
    daemon that did not stop.
    """

    calls: list[Call]
    refused: list[Record]
    cancels: list[Cancel]
    held: list[Record]
    lines: list[Line]
    tasks: dict[int, Record]
    events: list[Record]
    followed: list[Followed]
    lives: list[Life]
    full: list[tuple[float, float]]
    stops: list[float]
    kills: list[float]
    crashes: list[str]
    findings: list[str]
    places: dict[str, int]


def read(folder: str) -> History:
    """The history in the files of ``folder``; a missing one is empty."""
    said = _records(folder, "clients.jsonl")
    tasks = _records(folder, "tasks.jsonl")
    return History(
        calls=_calls(said),
        refused=[record for record in said if record["said"] == "refused"],
        cancels=_cancels(_records(folder, "cancels.jsonl")),
        held=_records(folder, "held.jsonl"),
        lines=lines(os.path.join(folder, "effects")),
        tasks={task["id"]: task for task in tasks},
        events=_records(folder, "events.jsonl"),
        followed=_followed(_records(folder, "followed.jsonl")),
        lives=_lives(_records(folder, "manager.jsonl")),
        full=_full(_records(folder, "disk.jsonl")),
        stops=[record["at"] for record in _records(folder, "stops.jsonl")],
        kills=[record["at"] for record in _records(folder, "kills.jsonl")],
        crashes=crashes(os.path.join(folder, "..", "daemon", "log")),
        findings=[record["finding"] for record in _records(folder, "findings.jsonl")],
        places={each["queue"]: each["places"] for each in _records(folder, "places.jsonl")},
    )


def lines(path: str) -> list[Line]:
    """The lines of a file of effects. Raises ValueError for one that is not of their form."""
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as file:
        return [_line(text) for text in file]


def crashes(path: str) -> list[str]:
    """What ended processes of the daemon, by its output; a traceback in its log is indented."""
    found: list[str] = []
    if not os.path.exists(path):
        return found
    with open(path, encoding="utf-8", errors="replace") as file:
        for text in file:
            if text.startswith("Traceback "):
                rest = (line for line in file if not line.startswith(" "))
                found.append(next(rest, "").strip())
    return found


def _line(text: str) -> Line:
    parts = text.rstrip("\n").split("\t")
    if len(parts) != 8 or not text.endswith("\n"):
        raise ValueError(f"a damaged line in the effects: {text!r}")
    at, task, attempt, pid = (int(part) for part in parts[:4])
    return Line(at, task, attempt, pid, *parts[4:])


def _records(folder: str, name: str) -> list[Record]:
    path = os.path.join(folder, name)
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as file:
        return [json.loads(text) for text in file]


def _calls(said: list[Record]) -> list[Call]:
    told = {record["call"]: record["task"] for record in said if record["said"] == "acknowledged"}
    return [
        Call(each["tag"], each["name"], each["args"], each["key"], told.get(each["call"]))
        for each in said
        if each["said"] == "submitting"
    ]


def _cancels(records: list[Record]) -> list[Cancel]:
    return [Cancel(each["task"], each.get("at"), each.get("was")) for each in records]


def _followed(records: list[Record]) -> list[Followed]:
    tasks: dict[str, list[int]] = {}
    events: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if "tasks" in record:
            tasks[record["stream"]] = record["tasks"]
        else:
            events[record["stream"]].append(record["event"])
    return [Followed(tasks[stream], events[stream]) for stream in tasks]


def _lives(records: list[Record]) -> list[Life]:
    """Starts and ends alternate; the last end is the stop."""
    pairs = zip(records[::2], records[1::2], strict=False)
    return [Life(start["at"], end["at"], end["status"]) for start, end in pairs][:-1]


def _full(records: list[Record]) -> list[tuple[float, float]]:
    """From each filling to the next emptying; one more filling in between changes nothing."""
    found: list[tuple[float, float]] = []
    since: float | None = None
    for record in records:
        if record["full"] and since is None:
            since = record["at"]
        elif not record["full"] and since is not None:
            found.append((since, record["at"]))
            since = None
    return found
