"""``taskctl logs``: a task's output, as it wrote it, byte for byte; but on a terminal.

What a task writes is often made of other people's data, and a terminal obeys what is in it: there
every control and formatting character is made visible, and a carriage return begins a new line.
"""

from __future__ import annotations

import codecs
import io
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from typing import TYPE_CHECKING

from taskd.cli.output import text
from taskd.cli.verbs.options import task_id

if TYPE_CHECKING:
    from taskd.client.blocking import Client

_LOOK_AGAIN = 0.25
"""Seconds between two requests for more with ``-f``. A task writes its output straight to its file,
so that no daemon knows when it has grown."""


class _Shown:
    """Turns the output's bytes into text for a terminal; a part may end within a character."""

    def __init__(self) -> None:
        characters = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._decoder = io.IncrementalNewlineDecoder(characters, translate=True)

    def text(self, data: bytes, is_last: bool = False) -> str:
        return "\n".join(
            "\t".join(map(text.clean, line.split("\t")))
            for line in self._decoder.decode(data, is_last).split("\n")
        )


def add_logs(parser: ArgumentParser) -> None:
    """``logs [-f] [--raw] ID``"""
    parser.add_argument(
        "-f", "--follow", action="store_true", help="show what comes until the task has ended"
    )
    parser.add_argument(
        "--raw",
        action="store_true",
        help="also a terminal gets each byte as it was written, colours and all: it obeys them",
    )
    parser.add_argument("id", metavar="ID", type=task_id, help="the task's id")


def do_logs(client: Client, args: Namespace) -> None:
    show(client, args.id, args.follow, args.raw)


def show(client: Client, task: int, follow: bool, raw: bool) -> None:
    shown = None if raw or not sys.stdout.isatty() else _Shown()
    for data in _parts(client, task, follow):
        if shown is None:
            sys.stdout.buffer.write(data)
        else:
            sys.stdout.write(shown.text(data))
        sys.stdout.flush()
    if shown is not None:
        sys.stdout.write(shown.text(b"", is_last=True))


def _parts(client: Client, task: int, follow: bool) -> Iterator[bytes]:
    offset = 0
    while True:
        part = client.log(task, offset)
        yield part["data"]
        gone = part["offset"] - offset - len(part["data"])
        if gone and follow:
            print(f"taskctl: {gone} bytes were cut out before they were read", file=sys.stderr)
        offset = part["offset"]
        if part["data"] and offset < part["size"]:
            continue
        if part["ended"] or not follow:
            return
        time.sleep(_LOOK_AGAIN)
