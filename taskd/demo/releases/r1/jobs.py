"""A job, and what the tasks count and tell of it.

``job``: which files ({library, left_out, share, shares, limit}), the ``folder`` where the demo
looks on, and the ``pace``: how many seconds an item takes at least. The work itself takes
milliseconds; the pace makes it something to watch.
"""

from __future__ import annotations

import os
from typing import Any

from taskd import Context

Job = dict[str, Any]


def list_files(ctx: Context, job: Job, release: str) -> list[str]:
    """The names of this job's share of the library's sources."""
    tell(ctx, job, release, "step list")
    found = []
    for folder, folders, names in os.walk(job["library"]):
        folders[:] = [name for name in folders if name not in job["left_out"]]
        paths = (os.path.join(folder, name) for name in names if name.endswith(".py"))
        found += [os.path.relpath(path, job["library"]) for path in paths]
    return sorted(found)[job["share"] :: job["shares"]][: job["limit"]]


def add(ctx: Context, name: str, count: int) -> None:
    """A counter in ``ctx.state`` goes with the task, whichever worker and release runs it."""
    ctx.state[name] = ctx.state.get(name, 0) + count


def tell(ctx: Context, job: Job, release: str, item: str) -> None:
    """Append one line to the file that the demo counts by: one write, so that none are mixed."""
    line = f"{ctx.id}\t{ctx.attempt}\t{release}\t{os.getpid()}\t{item}\n"
    with open(os.path.join(job["folder"], "tally"), "ab", buffering=0) as file:
        file.write(line.encode())
