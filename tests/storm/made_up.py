"""Histories made up by hand: one task that does all things right, to be spoilt by a test."""

from __future__ import annotations

import zlib
from typing import Any

from contrib.storm.checker import check
from contrib.storm.history import EVERY, Call, Cancel, Followed, History, Life, Line

PROGRAM: list[list[Any]] = [
    ["step", "first", 0.0, 0],
    ["each", "rows", 2, "sequence", [["step", "in", 0.0, 0], ["each", "cells", 2, "cursor", []]]],
    ["step", "last", 0.0, 0],
]

TAG = "tag"

ITEMS = ["rows/0/cells/0", "rows/0/cells/1", "rows/0", "rows/1/cells/0", "rows/1/cells/1", "rows/1"]


def total() -> int:
    found = 0
    for item in ITEMS:
        found = zlib.crc32(item.encode(), found)
    return found


RIGHT = {
    "tag": TAG,
    "sum": total(),
    "held": 0,
    "steps": {"first": "n-first", "last": "n-last"},
    "further": {},
}


class Effects:
    """Lines of one task, in order; ``attempt`` is that of those to come."""

    def __init__(self, task: int = 1) -> None:
        self.lines: list[Line] = []
        self.task = task
        self.attempt = 0
        self.pid = 100
        self.release = "r1"

    def tell(self, event: str, what: str = "", value: str = "") -> Effects:
        at = len(self.lines) + 1
        line = Line(at, self.task, self.attempt, self.pid, self.release, event, what, value)
        self.lines.append(line)
        return self

    def begin(self) -> Effects:
        self.attempt += 1
        self.pid += 1
        return self.tell("attempt-begin", TAG)

    def end(self, how: str = "returned") -> Effects:
        return self.tell("attempt-end", how)

    def step(self, path: str) -> Effects:
        self.tell("step-begin", path)
        self.tell("step-end", path, "n-" + path)
        return self.kept(path)

    def kept(self, path: str) -> Effects:
        return self.tell("step-kept", path, "n-" + path)

    def cell(self, path: str) -> Effects:
        return self.tell("item-begin", path).tell("item-end", path)

    def row(self, number: int) -> Effects:
        row = f"rows/{number}"
        self.tell("item-begin", row).step(f"{row}/in")
        self.cell(f"{row}/cells/0").cell(f"{row}/cells/1").tell("loop-end", f"{row}/cells")
        return self.tell("item-end", row)

    def whole(self) -> Effects:
        """One attempt that does all of it."""
        self.begin().step("first").row(0).row(1)
        return self.tell("loop-end", "rows").step("last").end()


class Story:
    """A history of one task, right as it is; tests change its parts and ask what is found."""

    def __init__(self) -> None:
        self.effects = Effects().whole()
        self.name = "plain-finish"
        self.program = PROGRAM
        self.key: str | None = None
        self.further: dict[str, Any] = {}
        self.calls = [self.call(1)]
        self.cancels: list[Cancel] = []
        self.refused: list[dict[str, Any]] = []
        self.held: list[dict[str, Any]] = []
        self.task: dict[str, Any] = {
            "id": 1,
            "name": self.name,
            "state": "succeeded",
            "queue": "default",
            "reason": None,
            "attempt": 1,
            "result": RIGHT,
            "error": None,
        }
        self.tasks = [self.task]
        self.events: list[dict[str, Any]] = []
        self.states("queued", "running", "succeeded")
        self.followed: list[Followed] = []
        self.lives = [Life(10.0, 20.0, -9)]
        self.full: list[tuple[float, float]] = []
        self.stops: list[float] = []
        self.kills: list[float] = []
        self.crashes: list[str] = []
        self.findings: list[str] = []
        self.places = {"default": 2, EVERY: 3}

    def call(self, task: int | None) -> Call:
        args = {"tag": TAG, "program": self.program, **self.further}
        return Call(TAG, self.name, args, self.key, task)

    def states(self, *states: str, task: int = 1) -> None:
        """The states that the task goes through, from now on."""
        attempt = 0
        self.events = [event for event in self.events if event["task"] != task]
        for state in states:
            attempt += state == "running"
            number = len(self.events) + 1
            self.events.append({"event": number, "task": task, "state": state, "attempt": attempt})
        if task == 1:
            self.task["attempt"] = attempt
            self.task["state"] = states[-1]

    def rules_broken(self) -> set[str]:
        return {violation.rule for violation in self.violations()}

    def said(self) -> str:
        return "\n".join(violation.what for violation in self.violations())

    def violations(self) -> list[Any]:
        return check(
            History(
                self.calls,
                self.refused,
                self.cancels,
                self.held,
                self.effects.lines,
                {task["id"]: task for task in self.tasks},
                self.events,
                self.followed,
                self.lives,
                self.full,
                self.stops,
                self.kills,
                self.crashes,
                self.findings,
                self.places,
            )
        )
