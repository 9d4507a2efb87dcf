"""The content of each file of a job."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from taskd import Context

from .jobs import Job, add, list_files, tell

RELEASE = "r1"


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
        yield data
        time.sleep(max(0.0, began + job["pace"] - time.monotonic()))
