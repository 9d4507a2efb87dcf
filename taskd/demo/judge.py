"""What was lost, repeated or wrong: the demo's verdict, from what was counted outside the daemon.

Pure. The tally is a file to which each item's body, each step and each turn of the shell
command's loop appended one line when it began::

    TASK \\t ATTEMPT \\t REVISION \\t PID \\t ITEM \\n

``REVISION`` is what the code that ran says of itself, not what the daemon says of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
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


class Work(Record):
    """One task to submit, and how it should go. ``title``: its name in the summary.

    ``revisions``: on which releases' code it is to run, in order. ``files``: those below
    ``library`` that it is to go over.
    """

    name: str
    title: str
    on_deploy: str
    revisions: tuple[str, ...]
    args: dict[str, Any]
    library: str
    files: Sequence[str]

    @property
    def is_command(self) -> bool:
        """A shell command has no steps and no result but what it prints."""
        return self.name == "command"


class Ended(Record):
    """How a task ended, as a client was told. ``why``: the error or reason, if any."""

    state: str
    why: str
    result: Mapping[str, Any] | None


class Row(Record):
    """One task in the summary. ``ran``: the items begun on each release, in order."""

    task: int
    work: Work
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


def judge(
    task: int, work: Work, result: Mapping[str, Any], tally: Iterable[Line], ended: Ended
) -> Row:
    """One task's row. ``result``: what a plain loop finds; ``tally`` may have others' lines too."""
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
        did, should = (" then ".join(names) or "nothing" for names in (code, work.revisions))
        problems.append(f"ran on {did}, and should have run on {should}")
    if not work.is_command:  # a task of the app counts its files by release itself
        result = {**result, **{f"by {revision}": count for revision, count in ran.items()}}
    wrong = _wrong_result(result, ended)
    done = sum(begun[item] > 0 for item in files)
    repeated = sum(count - 1 for count in begun.values())
    return Row(task, work, ran, done, repeated, not wrong, [*problems, *wrong])


def strangers(known: Container[int], tally: Iterable[Line]) -> list[str]:
    """Lines of tasks that the demo did not submit."""
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


def _wrong_result(should: Mapping[str, Any], ended: Ended) -> list[str]:
    if ended.state != "succeeded" or ended.result is None:
        return [f"it ended as {ended.state}" + (f": {ended.why}" if ended.why else "")]
    return [
        f"{name} is {ended.result.get(name)!r} in its result, and should be {should.get(name)!r}"
        for name in sorted({*should, *ended.result})
        if name not in should or should[name] != ended.result.get(name)
    ][:3]
