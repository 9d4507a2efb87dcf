"""What was lost, repeated or wrong: the demo's verdict, from what was counted outside the daemon.

Pure. The tally is a file to which each item's body, each step and each turn of the shell
command's loop appended one line when it began::

    TASK \\t ATTEMPT \\t REVISION \\t PID \\t ITEM \\n

``REVISION`` is what the code that ran says of itself, not what the daemon says of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from taskd.record import Record


class Line(Record):
    """One line of the tally."""

    task: int
    attempt: int
    revision: str
    pid: int
    item: str


class Expected(Record):
    """One task as it should have gone.

    ``revisions``: on which releases' code it runs, in order. ``steps`` are counted like items but
    not shown. ``counts_itself``: its result says how many items it did on which release.
    """

    task: int
    name: str
    on_deploy: str
    revisions: tuple[str, ...]
    items: Sequence[str]
    steps: Sequence[str]
    result: Mapping[str, Any]
    counts_itself: bool


class Ended(Record):
    """How a task ended, as a client was told. ``why``: the error or reason, if any."""

    state: str
    why: str
    result: Mapping[str, Any] | None


class Row(Record):
    """One task in the summary. ``ran``: the items begun on each release, in order."""

    expected: Expected
    ran: Mapping[str, int]
    done: int
    repeated: int
    is_right: bool
    problems: Sequence[str]


def parse(tally: str) -> list[Line]:
    """The lines of the tally. Raises ValueError for one that is not of its form."""
    found = []
    for number, text in enumerate(tally.splitlines(), 1):
        parts = text.split("\t")
        if len(parts) != 5 or not all(parts[n].isdigit() for n in (0, 1, 3)):
            raise ValueError(f"line {number} of the tally is damaged: {text!r}")
        found.append(Line(int(parts[0]), int(parts[1]), parts[2], int(parts[3]), parts[4]))
    return found


def judge(expected: Expected, tally: Iterable[Line], ended: Ended) -> Row:
    """One task's row; ``tally`` may have the lines of others too."""
    lines = [line for line in tally if line.task == expected.task]
    begun = Counter(line.item for line in lines)
    wanted = {*expected.items, *expected.steps}
    ran = Counter(line.revision for line in lines if line.item in set(expected.items))
    wrong = _wrong_result(expected, ended, ran)
    problems = [
        *_count("lost", [item for item in wanted if not begun[item]]),
        *_count("repeated", [item for item in begun if begun[item] > 1]),
        *_count("not asked for", [item for item in begun if item not in wanted]),
        *_wrong_order(lines),
        *_wrong_code(expected, lines),
        *wrong,
    ]
    return Row(
        expected=expected,
        ran=ran,
        done=sum(begun[item] > 0 for item in expected.items),
        repeated=sum(count - 1 for count in begun.values()),
        is_right=not wrong,
        problems=problems,
    )


def strangers(expected: Iterable[Expected], tally: Iterable[Line]) -> list[str]:
    """Lines of tasks that nobody submitted."""
    known = {each.task for each in expected}
    unknown = [f"task {line.task}: {line.item}" for line in tally if line.task not in known]
    return _count("not asked for", unknown)


def missed(seen: Sequence[int], history: Sequence[int]) -> list[str]:
    """Whether a stream of events had a gap or a repeat, by their numbers and the whole history."""
    if list(seen) == list(history):
        return []
    lost = sorted(set(history) - set(seen))
    twice = sorted(number for number, count in Counter(seen).items() if count > 1)
    return [f"the stream differs from the history: missing {lost}, twice {twice}"]


def _count(what: str, items: Sequence[str]) -> list[str]:
    if not items:
        return []
    shown = ", ".join(sorted(items)[:3]) + (", …" if len(items) > 3 else "")
    return [f"{len(items)} {what}: {shown}"]


def _wrong_order(lines: Sequence[Line]) -> list[str]:
    """An attempt that began before another had ended would mix its lines with the other's."""
    processes = [(line.attempt, line.pid) for line in lines]
    changes = [now for now, _ in groupby(processes)]
    if changes == sorted(changes) and len(changes) == len({attempt for attempt, _ in changes}):
        return []
    return [f"two processes worked on it at once (attempt, pid): {changes[:6]}"]


def _wrong_code(expected: Expected, lines: Sequence[Line]) -> list[str]:
    ran = tuple(dict.fromkeys(line.revision for line in lines))
    if ran == expected.revisions:
        return []
    return [f"ran on {_names(ran)}, and should have run on {_names(expected.revisions)}"]


def _names(revisions: Sequence[str]) -> str:
    return " then ".join(revisions) or "nothing"


def _wrong_result(expected: Expected, ended: Ended, ran: Mapping[str, int]) -> list[str]:
    if ended.state != "succeeded" or ended.result is None:
        return [f"it ended as {ended.state}" + (f": {ended.why}" if ended.why else "")]
    should = dict(expected.result)
    if expected.counts_itself:
        should |= {f"by {revision}": count for revision, count in ran.items()}
    fields = sorted(
        name
        for name in {*should, *ended.result}
        if name not in should or should[name] != ended.result.get(name)
    )
    return [
        f"{name} is {ended.result.get(name)!r} in its result, and should be {should.get(name)!r}"
        for name in fields[:3]
    ]
