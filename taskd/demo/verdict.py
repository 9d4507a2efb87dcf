"""What was lost, repeated or wrong, from what was counted outside the daemon; and the last page.

Pure. The tally is a file to which each file's turn, each step and each turn of the shell command's
loop appended one line when it began: TASK, ATTEMPT, REVISION, PID, ITEM, with tabs between them.
REVISION is what the code that ran says of itself, not what the daemon says of it.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from taskd.cli.output import text
from taskd.cli.output.text import Column, Look
from taskd.record import Record

_TITLES = ("TASK", "NAME", "ON DEPLOY", "RAN ON", "FILES", "REPEATED", "RESULT")


class Line(Record):
    """One line of the tally."""

    task: int
    attempt: int
    revision: str
    pid: int
    item: str


class Work(Record):
    """One task to submit, and the releases on whose code it should run, in order.

    A shell command has no steps, and no result but what it prints.
    """

    name: str
    on_deploy: str
    revisions: tuple[str, ...]
    args: dict[str, Any]
    files: Sequence[str]
    is_command: bool = False


class Told(Record):
    """What a client was told of a task: its result, or, as a text, how it ended without one; the
    numbers of its events as they came, and those of its history."""

    result: Mapping[str, Any] | str
    seen: Sequence[int]
    history: Sequence[int]


class Row(Record):
    """One task on the last page. ``ran``: the files begun on each release, in order."""

    task: int
    work: Work
    ran: Mapping[str, int]
    done: int
    repeated: int
    is_right: bool
    problems: Sequence[str]


class Figures(Record):
    """What was measured of the whole. ``pids``: the daemon's, at the start and at the end.

    In seconds: the ``pause`` that the daemon tells, and how long each ping around it took.
    """

    pids: tuple[int, int]
    pause: float
    pings: Sequence[float]
    connections_lost: int
    events: int
    took: float


def parse(tally: str) -> list[Line]:
    """The lines of the tally. Raises ValueError for one that is not of its form."""
    found = []
    for number, line in enumerate(tally.splitlines(), 1):
        parts = line.split("\t")
        if len(parts) != 5 or not all(parts[n].isdigit() for n in (0, 1, 3)):
            raise ValueError(f"line {number} of the tally is damaged: {line!r}")
        found.append(Line(int(parts[0]), int(parts[1]), parts[2], int(parts[3]), parts[4]))
    return found


def judge(
    task: int, work: Work, should: Mapping[str, Any], tally: Iterable[Line], told: Told
) -> Row:
    """One task's row. ``should``: a plain loop's result; ``tally`` has other tasks' lines too."""
    lines = [line for line in tally if line.task == task]
    begun = Counter(line.item for line in lines)
    files = {f"file {name}" for name in work.files}
    wanted = files if work.is_command else files | {"step list", "step report"}
    ran = Counter(line.revision for line in lines if line.item in files)
    problems = [
        *_count("lost", [item for item in wanted if not begun[item]]),
        *_count("repeated", [item for item in begun if begun[item] > 1]),
        *_count("not asked for", [item for item in begun if item not in wanted]),
    ]
    # An attempt that began before another had ended would mix its lines with the other's.
    turns = [turn for turn, _ in groupby((line.attempt, line.pid) for line in lines)]
    if turns != sorted(turns) or len(turns) != len({attempt for attempt, _ in turns}):
        problems.append(f"two processes worked on it at once (attempt, pid): {turns[:6]}")
    if (code := tuple(dict.fromkeys(line.revision for line in lines))) != work.revisions:
        did, wish = (" then ".join(names) or "nothing" for names in (code, work.revisions))
        problems.append(f"ran on {did}, and should have run on {wish}")
    if told.seen != told.history:
        problems.append(f"its stream of events was {told.seen}, and its history {told.history}")
    if not work.is_command:  # a task of the app counts its files by release itself
        should = {**should, **{f"by {revision}": count for revision, count in ran.items()}}
    wrong = _wrong_result(should, told.result)
    done = sum(begun[item] > 0 for item in files)
    repeated = sum(count - 1 for count in begun.values())
    return Row(task, work, ran, done, repeated, not wrong, [*problems, *wrong])


def _wrong_result(should: Mapping[str, Any], result: Mapping[str, Any] | str) -> list[str]:
    if isinstance(result, str):
        return [f"it ended as {result}"]
    return [
        f"{name} is {result.get(name)!r} in its result, and should be {should.get(name)!r}"
        for name in sorted({*should, *result})
        if name not in should or should[name] != result.get(name)
    ][:3]


def _count(what: str, items: Sequence[str]) -> list[str]:
    shown = ", ".join(sorted(items)[:3]) + (", …" if len(items) > 3 else "")
    return [f"{len(items)} {what}: {shown}"] if items else []


def problems(rows: Sequence[Row], figures: Figures, tally: Iterable[Line]) -> list[str]:
    """What is not as it should be, a sentence each: of each task, and of the whole."""
    found = [f"task {row.task}: {why}" for row in rows for why in row.problems]
    known = {row.task for row in rows}
    unknown = [f"task {line.task}: {line.item}" for line in tally if line.task not in known]
    found += _count("not asked for", unknown)
    if len(set(figures.pids)) > 1:
        found.append("the daemon was process {}, now {}".format(*figures.pids))
    if figures.connections_lost:
        found.append(f"{figures.connections_lost} connections dropped")
    if not figures.pings:
        found.append("no ping was answered during the deploy")
    return found


def page(rows: Sequence[Row], figures: Figures, wrong: Sequence[str], look: Look) -> list[str]:
    """A table of the tasks; figures, in 79 columns; and the conclusion. ``wrong``: the problems."""
    cells = [
        [
            str(row.task),
            row.work.name,
            row.work.on_deploy,
            ", ".join(f"{name}: {count}" for name, count in row.ran.items()) or "none",
            f"{row.done}/{len(row.work.files)}",
            str(row.repeated),
            "same" if row.is_right else "WRONG",
        ]
        for row in rows
    ]
    columns = [Column(title, right=title in ("TASK", "FILES", "REPEATED")) for title in _TITLES]
    done, moved = sum(row.done for row in rows), sum(len(row.ran) > 1 for row in rows)
    pings = [1000 * ping for ping in figures.pings or [0.0]]
    good = f"Nothing was lost, repeated or wrong. It took {figures.took:.0f} seconds."
    bad = "Something was lost, repeated or wrong:"
    return [
        *text.table(columns, cells, look.width - 1),
        "",
        f"{done} files done by {len(rows)} tasks, counted outside the daemon: what works on a",
        "file first appends a line to a common file. Results were compared with those",
        "of plain loops that know no deploy, no steps and no saved state.",
        "",
        f"deploy       {moved} tasks moved to the new code at their next file, none else",
        f"connections  {figures.connections_lost} dropped by the deploy; {figures.events} events "
        "followed, each once",
        f"pause        {1000 * figures.pause:.0f} ms, says the daemon (pid {figures.pids[0]}, "
        "before and after)",
        f"             {max(pings):.0f} ms, the longest of {len(figures.pings)} pings around it "
        f"(usually {statistics.median(pings):.0f} ms)",
        "",
        text.coloured(bad, "failed", look) if wrong else text.coloured(good, "succeeded", look),
        *(f"  {text.clean(why)}" for why in wrong),
    ]
