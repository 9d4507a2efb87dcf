"""What is submitted: programs for the app's tasks, made up from a seed. Pure.

See ``release/storm_tasks.py`` for what the moves of a program mean.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

Program = list[list[Any]]

NAMES = ("plain-finish", "plain-checkpoint", "later-finish", "later-checkpoint")
COMMAND = "command"

QUEUES = {f"q{number}": number % 3 + 1 for number in range(24)}
"""Queues beside the default one, and the places in each."""

FURTHER = 10
"""Arguments that a task of the app takes or not: each set of them is another shape."""

MIB = 1 << 20


class Submission(NamedTuple):
    """One submission as planned. ``gap``: seconds to wait before it. ``times``: how often it is
    submitted, at once; more than once only with a ``key``. ``by_cli``: by `taskctl run`.
    ``queue``: None for the task's own."""

    gap: float
    tag: str
    name: str
    args: dict[str, Any]
    key: str | None
    priority: int
    delay: float | None
    times: int
    by_cli: bool
    queue: str | None = None


def submissions(seed: str, per_minute: float, script: str) -> Iterator[Submission]:
    """Without end; the same for the same seed. ``script``: the program that commands run."""
    dice = random.Random(seed)
    number = 0
    while True:
        number += 1
        yield _submission(dice, f"{seed}-{number}", dice.expovariate(per_minute / 60), script)


def _submission(dice: random.Random, tag: str, gap: float, script: str) -> Submission:
    has_key = dice.random() < 0.3
    times = 2 if has_key and dice.random() < 0.4 else 1
    priority = dice.choice((0, 0, 0, 5, -5))
    delay = round(dice.uniform(0.1, 3.0), 2) if dice.random() < 0.06 else None
    kind = dice.choices(list(KINDS), [weight for weight, _ in KINDS.values()])[0]
    if kind == COMMAND:
        turns, seconds = dice.randint(1, 8), round(dice.uniform(0.02, 0.3), 2)
        argv = ["/bin/sh", script, tag, str(turns), str(seconds)]
        args: dict[str, Any] = {"argv": argv, "cwd": None, "env": None}
        by_cli = not has_key and delay is None and dice.random() < 0.3
    else:
        args = {"tag": tag, "program": KINDS[kind][1](dice), **_further(dice)}
        by_cli = False
    queue = dice.choice(tuple(QUEUES)) if not by_cli and dice.random() < 0.4 else None
    name = kind if kind in ("doomed", COMMAND) else dice.choice(NAMES)
    return Submission(
        gap, tag, name, args, tag if has_key else None, priority, delay, times, by_cli, queue
    )


def _further(dice: random.Random) -> dict[str, int]:
    """Further arguments; most tasks have none."""
    if dice.random() < 0.6:
        return {}
    return {f"a{n}": dice.randrange(1000) for n in range(FURTHER) if dice.random() < 0.4}


def _time(dice: random.Random, low: float, high: float) -> float:
    return round(dice.uniform(low, high), 3)


def _step(dice: random.Random, name: str, longest: float = 0.15) -> list[Any]:
    size = dice.choice((0, 0, 0, 100, 3000, 30_000))
    return ["step", name, _time(dice, 0.0, longest), size]


def _loop(dice: random.Random, name: str, count: int, body: Program) -> list[Any]:
    return ["each", name, count, dice.choice(("sequence", "cursor")), body]


def _quick(dice: random.Random) -> Program:
    if dice.random() < 0.5:
        return [["work", _time(dice, 0.0, 0.05)]]
    return [_step(dice, "only", 0.05)]


def _steps(dice: random.Random) -> Program:
    found = [_step(dice, f"s{number}") for number in range(dice.randint(2, 6))]
    return [*found, ["checkpoint"], ["print", dice.randint(1, 3000)], _step(dice, "last")]


def _short_loop(dice: random.Random) -> Program:
    body = [["work", _time(dice, 0.0, 0.1)]]
    if dice.random() < 0.3:
        body.append(_step(dice, "inside", 0.05))
    return [_step(dice, "first"), _loop(dice, "rows", dice.randint(0, 25), body)]


def _long_loop(dice: random.Random) -> Program:
    body = [["work", _time(dice, 0.04, 0.12)], ["print", 200]]
    return [_loop(dice, "rows", dice.randint(50, 130), body), _step(dice, "last")]


def _nested(dice: random.Random) -> Program:
    cells = _loop(dice, "cells", dice.randint(1, 6), [["work", _time(dice, 0.0, 0.06)]])
    body = [_step(dice, "check", 0.05), cells, _step(dice, "close", 0.05)]
    if dice.random() < 0.3:
        body.insert(1, ["nap", "nap", _time(dice, 0.05, 0.3)])
    return [_loop(dice, "rows", dice.randint(2, 5), body), _step(dice, "last")]


def _napping(dice: random.Random) -> Program:
    long, short = _time(dice, 1.2, 2.5), _time(dice, 0.1, 0.8)
    return [_step(dice, "a"), ["nap", "long", long], _step(dice, "b"), ["nap", "short", short]]


def _flaky(dice: random.Random) -> Program:
    often = ["raise", "trouble", dice.randint(1, 2)]
    if dice.random() < 0.5:
        return [_step(dice, "first"), often, _step(dice, "last")]
    return [_step(dice, "first"), _loop(dice, "rows", 4, [["work", 0.03], often])][:2]


def _large(dice: random.Random) -> Program:
    """Every save has all of the state: that is large, and they are few."""
    hold = ["hold", int(dice.uniform(0.3, 3) * MIB)]
    rows = _loop(dice, "rows", dice.randint(2, 5), [["work", _time(dice, 0.05, 0.4)]])
    return [_step(dice, "first"), hold, rows, ["checkpoint"], _step(dice, "last")]


def _doomed(dice: random.Random) -> Program:
    return [_step(dice, "first"), ["work", _time(dice, 0.0, 0.3)], ["fail"]]


def _none(dice: random.Random) -> Program:
    return []


KINDS: dict[str, tuple[float, Callable[[random.Random], Program]]] = {
    "quick": (36, _quick),
    "steps": (14, _steps),
    "short loop": (18, _short_loop),
    "long loop": (8, _long_loop),
    "nested": (10, _nested),
    "napping": (4, _napping),
    "flaky": (3, _flaky),
    "large": (5, _large),
    "doomed": (2, _doomed),
    COMMAND: (5, _none),
}
"""How often each kind comes, and what makes its program."""
