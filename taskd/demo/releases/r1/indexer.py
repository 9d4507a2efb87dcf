"""An app that indexes source files. Each step and each file tells the demo when it begins.

``job``: the ``files`` below ``library``; the ``folder`` where the demo looks on; and the ``pace``,
how many seconds a file takes at least, since the work itself takes milliseconds.
"""

from __future__ import annotations

import hashlib
import os
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from taskd import Context, task

from . import release

Job = dict[str, Any]


@task(queue="index", on_deploy="checkpoint")
def hash_files(ctx: Context, job: Job) -> dict[str, Any]:
    """A hash over the hashes of all files."""
    for data in read_files(ctx, job):
        chain = ctx.state.get("hash", "") + hashlib.sha256(data).hexdigest()
        ctx.state["hash"] = hashlib.sha256(chain.encode()).hexdigest()
    return dict(ctx.state)


@task(queue="index", on_deploy="finish")
def compress_files(ctx: Context, job: Job) -> dict[str, Any]:
    """How many bytes the files would take if each were compressed."""
    for data in read_files(ctx, job):
        add(ctx, "compressed", len(zlib.compress(data, 9)))
    return dict(ctx.state)


def read_files(ctx: Context, job: Job) -> Iterator[bytes]:
    """The content of each file of the job. Asking for the next one saves where the task is."""
    names = ctx.step("list", list_files, ctx, job)
    for name in ctx.each("files", names):
        began = time.monotonic()
        tell(ctx, job, f"file {name}")
        data = Path(job["library"], name).read_bytes()
        add(ctx, "files", 1)
        add(ctx, "bytes", len(data))
        add(ctx, f"by {release.NAME}", 1)
        ctx.progress(ctx.state["files"], len(names), release.note(ctx.state["bytes"], name))
        yield data
        time.sleep(max(0.0, began + job["pace"] - time.monotonic()))
    ctx.step("report", tell, ctx, job, "step report")


def list_files(ctx: Context, job: Job) -> list[str]:
    tell(ctx, job, "step list")
    return [name for name in job["files"] if Path(job["library"], name).exists()]


def add(ctx: Context, name: str, count: int) -> None:
    """A counter in ``ctx.state`` goes with the task, whichever worker and release runs it."""
    ctx.state[name] = ctx.state.get(name, 0) + count


def tell(ctx: Context, job: Job, item: str) -> None:
    """Append one line to the file that the demo counts by: one write, so that none are mixed."""
    line = f"{ctx.id}\t{ctx.attempt}\t{release.NAME}\t{os.getpid()}\t{item}\n"
    with open(os.path.join(job["folder"], "tally"), "ab", buffering=0) as file:
        file.write(line.encode())
