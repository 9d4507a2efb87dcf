"""``taskd``: starts a daemon, and has the verbs that need none running."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Sequence

import taskd
from taskd.cli import outcome, verb
from taskd.cli.verb import Verb

PROGRAM = "taskd"

VERBS = {
    "run": Verb("start.run", "run the daemon"),
    "confirm": Verb("start.confirm", "say which release the next start runs"),
    "backup": Verb("backup.command", "copy all tasks into a file, while the daemon runs"),
    "restore": Verb("backup.command", "put a backup in the store's place"),
    "demo": Verb("demo", "show a deploy under running tasks, in a minute"),
    "install": Verb("install.command", "write the systemd units and what they need"),
    "uninstall": Verb("install.command", "take away what install wrote"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """The console script; returns the exit status."""
    return outcome.guarded(PROGRAM, lambda: _main(list(sys.argv[1:] if argv is None else argv)))


def _main(words: list[str]) -> int:
    whole = ArgumentParser(PROGRAM, description="Run long tasks through deploys.")
    whole.add_argument("--version", action="version", version=f"{PROGRAM} {taskd.__version__}")
    verbs = whole.add_subparsers(title="verbs", dest="verb", metavar="VERB", required=True)
    for name, each in VERBS.items():
        parser = verbs.add_parser(name, help=each.summary)
        if name in words:
            verb.load(each, name, parser)
    args = whole.parse_args(words)
    status: int = args.verb_runs(args)
    return status
