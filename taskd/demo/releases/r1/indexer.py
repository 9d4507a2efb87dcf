"""An app that indexes source files: hashes, word counts, compressed sizes, definitions.

``job`` says which files: {library, share, shares, limit}, where the demo looks on: {folder}, and
how long an item takes at least: {pace} in seconds. The work itself takes milliseconds; the pace
makes it something to watch.
"""

from __future__ import annotations

import hashlib
import json
import keyword
import os
import re
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

from taskd import Context, task

RELEASE = "r1"

Job = dict[str, Any]


@task(queue="index", on_deploy="checkpoint")
def hash_files(ctx: Context, job: Job) -> dict[str, Any]:
    """A hash over the hashes of all files."""
    for data in files(ctx, job):
        chain = ctx.state.get("hash", "") + hashlib.sha256(data).hexdigest()
        ctx.state["hash"] = hashlib.sha256(chain.encode()).hexdigest()
    return report(ctx, job)


@task(queue="index", on_deploy="checkpoint")
def count_words(ctx: Context, job: Job) -> dict[str, Any]:
    """How many words there are, and how often each of Python's keywords."""
    for data in files(ctx, job):
        words = Counter(re.findall(r"\w+", data.decode("utf-8", "replace")))
        add(ctx, "words", words.total())
        for word in keyword.kwlist:
            add(ctx, word, words[word])
    return report(ctx, job)


@task(queue="index", on_deploy="finish")
def compress_files(ctx: Context, job: Job) -> dict[str, Any]:
    """What each file would take if it were compressed, in sum."""
    for data in files(ctx, job):
        add(ctx, "compressed", len(zlib.compress(data, 9)))
    return report(ctx, job)


@task(queue="index", on_deploy="finish")
def find_definitions(ctx: Context, job: Job) -> dict[str, Any]:
    """How many functions, classes and imports there are."""
    for data in files(ctx, job):
        for kind in ("def", "class", "import"):
            found = re.findall(rb"^\s*(?:async +)?%s\s" % kind.encode(), data, re.MULTILINE)
            add(ctx, kind, len(found))
    return report(ctx, job)


def files(ctx: Context, job: Job) -> Iterator[bytes]:
    """The content of each file of the job. Asking for the next one saves where the task is."""
    names = ctx.step("list", list_files, ctx, job)
    for name in ctx.each("files", names):
        began = time.monotonic()
        tell(ctx, job, f"file {name}")
        with open(os.path.join(job["library"], name), "rb") as file:
            data = file.read()
        add(ctx, "files", 1)
        add(ctx, "bytes", len(data))
        add(ctx, f"by {RELEASE}", 1)
        yield data
        time.sleep(max(0.0, began + job["pace"] - time.monotonic()))


def list_files(ctx: Context, job: Job) -> list[str]:
    """The names of this job's share of the library's sources."""
    tell(ctx, job, "step list")
    found = []
    for folder, folders, names in os.walk(job["library"]):
        folders[:] = [name for name in folders if name not in job["left_out"]]
        paths = (os.path.join(folder, name) for name in names if name.endswith(".py"))
        found += [os.path.relpath(path, job["library"]) for path in paths]
    return sorted(found)[job["share"] :: job["shares"]][: job["limit"]]


def report(ctx: Context, job: Job) -> dict[str, Any]:
    """Write down what was found, once, and return it."""
    ctx.step("report", write_report, ctx, job)
    return dict(ctx.state)


def write_report(ctx: Context, job: Job) -> None:
    tell(ctx, job, "step report")
    with open(os.path.join(job["folder"], f"report-{ctx.id}.json"), "w") as file:
        json.dump(ctx.state, file, indent=4)


def add(ctx: Context, name: str, count: int) -> None:
    """A counter in ``ctx.state`` goes with the task, whichever worker and release runs it."""
    ctx.state[name] = ctx.state.get(name, 0) + count


def tell(ctx: Context, job: Job, item: str) -> None:
    """Append one line to the file that the demo counts by: one write, so that none are mixed."""
    line = f"{ctx.id}\t{ctx.attempt}\t{RELEASE}\t{os.getpid()}\t{item}\n"
    where = os.path.join(job["folder"], "tally")
    fd = os.open(where, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(fd, line.encode())
    finally:
        os.close(fd)
