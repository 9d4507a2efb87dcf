"""What a storm did and found, as text, and as JSON for programs."""

from __future__ import annotations

import json
import os
import platform
from collections import Counter
from typing import Any, NamedTuple

from contrib.storm import programs
from contrib.storm.checker import Violation
from contrib.storm.history import Call, History
from contrib.storm.options import Options
from contrib.storm.workload import MIB


class Outcome(NamedTuple):
    """``done``: how often each action was done, by kind and what came of it."""

    options: Options
    plan: str
    done: Counter[str]
    figures: dict[str, Any]
    violations: list[Violation]


def figures(history: History, retried: int, seconds: float) -> dict[str, Any]:
    """The storm in numbers."""
    known = [call for call in history.calls if call.task is not None]
    states = Counter(task["state"] for task in history.tasks.values())
    attempts = sum(event["state"] == "running" for event in history.events)
    return {
        "seconds, with the calm after it": round(seconds),
        "calls of submit": len(history.calls),
        "acknowledged": sum(call.task is not None for call in history.calls),
        "refused, the disk being full": len(history.refused),
        "tasks": len(history.tasks),
        **{f"tasks {state}": count for state, count in sorted(states.items())},
        "attempts": attempts,
        "attempts cut off": attempts - sum(line.event == "attempt-end" for line in history.lines),
        "items done": sum(line.event == "item-end" for line in history.lines),
        "steps done": sum(line.event == "step-end" for line in history.lines),
        "state changes": len(history.events),
        "state changes followed live": sum(len(each.events) for each in history.followed),
        "held tasks retried": retried,
        "queues with tasks": len({task["queue"] for task in history.tasks.values()}),
        "shapes of arguments": len({(call.name, *sorted(call.args)) for call in known}),
        "states of a MiB or more": sum(_holds(call) >= MIB for call in known),
    }


def _holds(call: Call) -> int:
    return programs.held(call.args.get("program", []))


def as_json(outcome: Outcome) -> str:
    return json.dumps(
        {
            "seed": outcome.options.seed,
            "minutes": outcome.options.minutes,
            "plan": outcome.plan,
            "done": outcome.done,
            "figures": outcome.figures,
            "violations": [violation._asdict() for violation in outcome.violations],
        },
        indent=1,
    )


def as_markdown(outcome: Outcome, kind: str = "storm") -> str:
    """``kind``: "storm" or "soak"."""
    options = outcome.options
    hours, minutes = f"--hours {options.minutes / 60:g}", f"--minutes {options.minutes:g}"
    long = hours if kind == "soak" else minutes
    machine = f"{os.cpu_count()} CPUs, Linux {platform.release()}, Python"
    text = [
        f"# A {kind} of {options.minutes:g} minutes, seed {options.seed}",
        "",
        f"`python -m contrib.{kind} --seed {options.seed} {long}` on "
        f"{machine} {platform.python_version()}.",
        "",
        "| what was done | times |",
        "| --- | ---: |",
        *(f"| {kind} | {times:,} |" for kind, times in sorted(outcome.done.items())),
        "",
        "| what came of it | |",
        "| --- | ---: |",
        *(f"| {what} | {count:,} |" for what, count in outcome.figures.items()),
        "",
        f"**{len(outcome.violations)} violations**",
        "",
        *(f"- {each.rule}: task {each.task}: {each.what}" for each in outcome.violations),
    ]
    return "\n".join(text).rstrip() + "\n"
