"""Which tasks the demo runs, on which files, and how each of them should go.

The machine's work per item is milliseconds. Each item is given a pace, so that a task takes the
20 to 40 seconds in which one can watch it, on a slow machine too: the pace covers the work.
"""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Sequence
from typing import Any

from taskd.demo import plain
from taskd.demo.judge import Expected
from taskd.record import Record

OLD, NEW = "r1", "r2"

SHARES = 3
"""Each kind of task goes over this many shares of the files, one task a share."""

LIMIT = 120
"""Files of a share at most."""

CHECKED = 90
"""Files that the shell command sums up at most."""

FEWEST = 30
"""Files without which there is nothing to show."""

CHECKPOINT, FINISH = "checkpoint", "finish"

_SECONDS = {
    "hash_files": (CHECKPOINT, (24.0, 29.0, 34.0)),
    "count_words": (CHECKPOINT, (26.0, 31.0, 35.0)),
    "compress_files": (FINISH, (22.0, 28.0, 33.0)),
    "find_definitions": (FINISH, (23.0, 30.0, 34.0)),
}
"""How each kind meets a deploy, and how long its task of each share takes."""

_COMMAND_SECONDS = 27.0
_FRESH_SECONDS = 20.0

SCRIPT = r"""
tally=$1 pace=$2; shift 2
for file do
    printf '%s\t%s\t%s\t%s\tfile %s\n' \
        "$TASKD_TASK_ID" "$TASKD_ATTEMPT" "$TASKD_REVISION" $$ "$file" >> "$tally"
    sha256sum "$file"
    sleep "$pace"
done
"""
"""The shell command: a program that knows nothing of taskd but its environment."""


class Work(Record):
    """One task to submit. ``files``: those it will go over. ``is_fresh``: after the deploy."""

    name: str
    on_deploy: str
    args: dict[str, Any]
    files: Sequence[str]
    is_fresh: bool = False

    @property
    def is_command(self) -> bool:
        return self.name == "command"

    @property
    def title(self) -> str:
        """Its name in the summary."""
        if self.is_command:
            return "command (sh)"
        return self.name + (" (new)" if self.is_fresh else "")

    @property
    def revisions(self) -> tuple[str, ...]:
        """On which releases' code it is to run."""
        if self.is_fresh:
            return (NEW,)
        return (OLD, NEW) if self.on_deploy == CHECKPOINT else (OLD,)


class Plan(Record):
    """All of them. ``library``: the directory that the names of the files are below."""

    library: str
    works: Sequence[Work]

    @classmethod
    def of(cls, folder: str) -> Plan:
        """For Python's own library; the tasks write to ``folder``. Raises ValueError: no files."""
        library = sysconfig.get_path("stdlib")
        files = plain.library_files(library)
        if len(files) < FEWEST:
            raise ValueError(
                f"{library} has {len(files)} Python sources, too few to show anything: "
                "install Python's standard library with its sources"
            )
        return cls(library, [*_works(library, files, folder)])

    @property
    def files(self) -> int:
        """How many different files are gone over."""
        return len({name for work in self.works for name in work.files})

    @property
    def first(self) -> list[Work]:
        """Those that run when the deploy comes."""
        return [work for work in self.works if not work.is_fresh]

    @property
    def fresh(self) -> list[Work]:
        """Those that are submitted after it."""
        return [work for work in self.works if work.is_fresh]


def _works(library: str, files: Sequence[str], folder: str) -> list[Work]:
    works = [
        _work(name, on_deploy, _job(library, share, folder), files, seconds[share])
        for name, (on_deploy, seconds) in _SECONDS.items()
        for share in range(SHARES)
    ]
    fresh = _work("hash_files", CHECKPOINT, _job(library, 0, folder), files, _FRESH_SECONDS)
    return [*works, _command(library, files, folder), fresh._replace(is_fresh=True)]


def _job(library: str, share: int, folder: str) -> dict[str, Any]:
    return {
        "library": library,
        "left_out": plain.LEFT_OUT,
        "share": share,
        "shares": SHARES,
        "limit": LIMIT,
        "folder": folder,
    }


def _work(
    name: str, on_deploy: str, job: dict[str, Any], files: Sequence[str], seconds: float
) -> Work:
    own = files[job["share"] :: SHARES][:LIMIT]
    return Work(name, on_deploy, {"job": {**job, "pace": seconds / len(own)}}, own)


def _command(library: str, files: Sequence[str], folder: str) -> Work:
    own = files[:CHECKED]
    tally, pace = os.path.join(folder, "tally"), f"{_COMMAND_SECONDS / len(own):.3f}"
    argv = ["sh", "-c", SCRIPT, "index.sh", tally, pace, *own]
    return Work("command", FINISH, {"argv": argv, "cwd": library, "env": None}, own)


def expected(task: int, work: Work, library: str) -> Expected:
    """How the task with this id should go; computes its result plainly (milliseconds to 1 s)."""
    if work.is_command:
        result = plain.checksums(library, work.files)
    else:
        result = plain.result(work.name, library, work.files)
    return Expected(
        task=task,
        name=work.title,
        on_deploy=work.on_deploy,
        revisions=work.revisions,
        items=[f"file {name}" for name in work.files],
        steps=[] if work.is_command else ["step list", "step report"],
        result=result,
        counts_itself=not work.is_command,
    )
