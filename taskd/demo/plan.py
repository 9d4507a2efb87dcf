"""Which tasks the demo runs, on which files, and how each of them should go.

The machine's work per file is milliseconds. Each file is given a pace, so that a task takes the
20 to 40 seconds in which one can watch it, on a slow machine too: the pace covers the work.
"""

from __future__ import annotations

import os
import sysconfig

from taskd.demo import plain
from taskd.demo.verdict import Work

OLD, NEW = "r1", "r2"
LIBRARY = sysconfig.get_path("stdlib")

SECONDS = (24.0, 26.0, 29.0, 31.0, 33.0, 35.0)
"""The files are shared out to so many tasks of each kind, and this is how long each takes."""

COMMAND_SECONDS = 27.0
COMMAND_FILES = 90  # so many at most that the shell command sums up
FILES = 600  # so many at most in all shares
FEWEST = 30  # files without which there is nothing to show

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
    files = plain.library_files(LIBRARY)[:FILES]
    if len(files) < FEWEST:
        found = f"{LIBRARY} has {len(files)} Python sources"
        raise ValueError(f"{found}, too few to show anything: install Python's library with them")

    def work(name: str, on_deploy: str, revisions: tuple[str, ...], share: int) -> Work:
        own = files[share :: len(SECONDS)]
        pace = SECONDS[share] / len(own)
        job = {"library": LIBRARY, "files": own, "folder": folder, "pace": pace}
        return Work(name, on_deploy, revisions, {"job": job}, own)

    checked = files[:COMMAND_FILES]
    pace = f"{COMMAND_SECONDS / len(checked):.3f}"
    argv = ["sh", "-c", SCRIPT, "index.sh", os.path.join(folder, "tally"), pace, *checked]
    args = {"argv": argv, "cwd": LIBRARY, "env": None}
    shares = range(len(SECONDS))
    first = [
        *(work("hash_files", "checkpoint", (OLD, NEW), share) for share in shares),
        *(work("compress_files", "finish", (OLD,), share) for share in shares),
        Work("command", "finish", (OLD,), args, checked, is_command=True),
    ]
    return first, work("hash_files", "checkpoint", (NEW,), 0)
