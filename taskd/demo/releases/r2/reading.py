"""The content of each file of a job; new in r2: how many bytes are read, and which file is next."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from taskd import Context

from .jobs import Job, add, list_files, tell  # type: ignore[import-not-found]  # as in r1

RELEASE = "r2"


def files(ctx: Context, job: Job) -> Iterator[bytes]:
    """The content of each file of the job. Asking for the next one saves where the task is."""
    names = ctx.step("list", list_files, ctx, job, RELEASE)
    for name in ctx.each("files", names):
        began = time.monotonic()
        tell(ctx, job, RELEASE, f"file {name}")
        with open(os.path.join(job["library"], name), "rb") as file:
            data = file.read()
        add(ctx, "files", 1)
        add(ctx, "bytes", len(data))
        add(ctx, f"by {RELEASE}", 1)
        ctx.progress(ctx.state["files"], len(names), f"{ctx.state['bytes'] / 1e6:.1f} MB, {name}")
        yield data
        time.sleep(max(0.0, began + job["pace"] - time.monotonic()))
