"""Which tasks the demo runs, on which files, and how each of them should go.

The machine's work per item is milliseconds. Each item is given a pace, so that a task takes the
20 to 40 seconds in which one can watch it, on a slow machine too: the pace covers the work.
"""

from __future__ import annotations

import os
import sysconfig
from typing import Any

from taskd.demo import plain
from taskd.demo.judge import Work

OLD, NEW = "r1", "r2"
CHECKPOINT, FINISH = "checkpoint", "finish"

SHARES = 3  # each kind of task goes over this many shares of the files, one task a share
LIMIT = 120  # files of a share at most
CHECKED = 90  # files that the shell command sums up at most
FEWEST = 30  # files without which there is nothing to show

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


def works(folder: str) -> tuple[list[Work], Work]:
    """Those that run when the deploy comes, and the one that is submitted after it.

    They go over Python's own library and write to ``folder``. Raises ValueError: no sources there.
    """
    library = sysconfig.get_path("stdlib")
    files = plain.library_files(library)
    if len(files) < FEWEST:
        raise ValueError(
            f"{library} has {len(files)} Python sources, too few to show anything: "
            "install Python's standard library with its sources"
        )

    def work(name: str, on_deploy: str, share: int, seconds: float) -> Work:
        own = files[share::SHARES][:LIMIT]
        job: dict[str, Any] = {
            "library": library,
            "left_out": plain.LEFT_OUT,
            "share": share,
            "shares": SHARES,
            "limit": LIMIT,
            "folder": folder,
            "pace": seconds / len(own),
        }
        revisions = (OLD, NEW) if on_deploy == CHECKPOINT else (OLD,)
        return Work(name, name, on_deploy, revisions, {"job": job}, library, own)

    first = [
        work(name, on_deploy, share, seconds[share])
        for name, (on_deploy, seconds) in _SECONDS.items()
        for share in range(SHARES)
    ]
    summed = files[:CHECKED]
    tally, pace = os.path.join(folder, "tally"), f"{_COMMAND_SECONDS / len(summed):.3f}"
    argv = ["sh", "-c", SCRIPT, "index.sh", tally, pace, *summed]
    args = {"argv": argv, "cwd": library, "env": None}
    first.append(Work("command", "command (sh)", FINISH, (OLD,), args, library, summed))
    fresh = work("hash_files", CHECKPOINT, 0, _FRESH_SECONDS)
    return first, fresh._replace(title="hash_files (new)", revisions=(NEW,))
