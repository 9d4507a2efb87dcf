"""An app that indexes source files: hashes, word counts, compressed sizes, definitions."""

from __future__ import annotations

import hashlib
import json
import keyword
import os
import re
import zlib
from collections import Counter
from typing import Any

from taskd import Context, task

from .jobs import Job, add, tell
from .reading import RELEASE, files


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


def report(ctx: Context, job: Job) -> dict[str, Any]:
    """Write down what was found, once, and return it."""
    ctx.step("report", write_report, ctx, job)
    return dict(ctx.state)


def write_report(ctx: Context, job: Job) -> None:
    tell(ctx, job, RELEASE, "step report")
    with open(os.path.join(job["folder"], f"report-{ctx.id}.json"), "w") as file:
        json.dump(ctx.state, file, indent=4)
