"""``taskd``: starts a daemon, in the foreground or detached, and what needs none running.

The daemon itself is ``taskd.master``; this module finds its configuration and hands over.
"""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

import taskd
from taskd import config
from taskd.cli import outcome
from taskd.cli.install import command
from taskd.cli.start import confirm
from taskd.errors import ConfigError

PROGRAM = "taskd"


def main(argv: Sequence[str] | None = None) -> int:
    """The console script; returns the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    return outcome.guarded(PROGRAM, lambda: _main(words))


def _main(words: list[str]) -> int:
    args = parser().parse_args(words)
    status: int = args.verb_runs(args)
    return status


def parser() -> ArgumentParser:
    """The whole command line."""
    whole = ArgumentParser(PROGRAM, description="Run long tasks through deploys.")
    whole.add_argument("--version", action="version", version=f"{PROGRAM} {taskd.__version__}")
    verbs = whole.add_subparsers(title="verbs", dest="verb", metavar="VERB", required=True)
    _add_run(verbs.add_parser("run", help="run the daemon"))
    confirm.add(verbs.add_parser("confirm", help="say which release the next start runs"))
    _add_demo(verbs.add_parser("demo", help="show a deploy under running tasks, in a minute"))
    command.add_install(
        verbs.add_parser("install", help="write the systemd units and what they need")
    )
    command.add_uninstall(verbs.add_parser("uninstall", help="take away what install wrote"))
    return whole


def _add_demo(demo: ArgumentParser) -> None:
    demo.description = (
        "A daemon in a temporary directory, a dozen real tasks and a shell command, a deploy in "
        "their middle, and a table of what happened, counted outside the daemon. Exits 1 if "
        "anything was lost, repeated or wrong. Takes under a minute."
    )
    demo.add_argument("--keep", action="store_true", help="keep the directory, and say where")
    demo.add_argument(
        "--plain", action="store_true", help="print lines, also on a terminal; do not redraw"
    )
    demo.set_defaults(verb_runs=_demo)


def _add_run(run: ArgumentParser) -> None:
    run.add_argument(
        "--config",
        metavar="FILE",
        help="the configuration (default: $TASKD_CONFIG, else ~/.config/taskd/taskd.toml, "
        f"else {config.SYSTEM_FILE})",
    )
    run.add_argument(
        "--release",
        metavar="PATH",
        help="start with this release as if it were the first start, whichever was confirmed",
    )
    run.add_argument(
        "--detach",
        action="store_true",
        help="return once the daemon is ready, and leave it running",
    )
    run.set_defaults(verb_runs=_run)


def _run(args: Namespace) -> int:
    path = os.path.abspath(_config_file(args.config))
    release = os.path.abspath(args.release) if args.release else None

    def daemon() -> int:
        from taskd.master.start import main as start

        return start(path, release)

    from taskd.cli.output import streams
    from taskd.cli.start import container_init, detach

    streams.give_to_a_daemon()
    if not args.detach:
        return container_init.run(daemon) if os.getpid() == container_init.FIRST else daemon()

    return detach.run(lambda: outcome.guarded(PROGRAM, daemon))


def _config_file(option: str | None) -> str:
    path = config.find(option, os.environ)
    if path is None:
        raise ConfigError(
            "no configuration: name it with --config or $TASKD_CONFIG, or write "
            f"~/.config/taskd/taskd.toml or {config.SYSTEM_FILE}"
        )
    return path


def _demo(args: Namespace) -> int:
    from taskd.demo.run import main as demo

    return demo(keep=args.keep, plain=args.plain)
