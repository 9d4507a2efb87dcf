"""What ``taskd`` and ``taskctl`` share: a table of verbs, each in a module of its own.

A module is imported only when its verb is on the command line, so that a call starts fast. For a
verb ``x`` it has ``add_x(parser)``, which adds the verb's arguments, and ``do_x``, which runs it
with the parsed arguments (in taskctl with a client before them) and returns the exit status or
None.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from taskd.record import Record

if TYPE_CHECKING:
    from argparse import ArgumentParser


class Verb(Record):
    """Where a verb is, below ``taskd.cli``, and what it does in a few words."""

    module: str
    summary: str


def load(verb: Verb, name: str, parser: ArgumentParser) -> None:
    """Import the module of a verb and add the verb's arguments to ``parser``."""
    module = import_module(f"taskd.cli.{verb.module}")
    getattr(module, f"add_{name}")(parser)
    parser.set_defaults(verb_runs=getattr(module, f"do_{name}"))
