"""``taskctl logs``: a task's output, as it wrote it, byte for byte."""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from taskd.cli.options import add_id

if TYPE_CHECKING:
    from taskd.client.blocking import Client

_LOOK_AGAIN = 0.25
"""Seconds between two looks for more with ``-f``. Output goes from the task straight to its file,
so that there is nobody who could tell when it has grown."""


def add_logs(parser: ArgumentParser) -> None:
    """``logs [-f] ID``"""
    parser.add_argument(
        "-f", "--follow", action="store_true", help="show what comes until the task has ended"
    )
    add_id(parser)
    parser.set_defaults(verb_runs=_logs)


def _logs(client: Client, args: Namespace) -> None:
    offset = 0
    while True:
        part = client.log(args.id, offset)
        sys.stdout.buffer.write(part["data"])
        sys.stdout.buffer.flush()
        gone = part["offset"] - offset - len(part["data"])
        if gone and args.follow:
            print(f"taskctl: {gone} bytes were cut out before they were read", file=sys.stderr)
        offset = part["offset"]
        if part["data"] and offset < part["size"]:
            continue
        if part["ended"] or not args.follow:
            return
        time.sleep(_LOOK_AGAIN)
