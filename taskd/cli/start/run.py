"""``taskd run``: find the configuration and become the daemon, which is ``taskd.master``."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace

from taskd import config
from taskd.cli import outcome
from taskd.cli.output import streams
from taskd.cli.start import container_init, detach
from taskd.errors import ConfigError


def add_run(parser: ArgumentParser) -> None:
    """``run [--config FILE] [--release PATH] [--detach]``"""
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="the configuration (default: $TASKD_CONFIG, else ~/.config/taskd/taskd.toml, "
        f"else {config.SYSTEM_FILE})",
    )
    parser.add_argument(
        "--release",
        metavar="PATH",
        help="start with this release as if it were the first start, whichever was confirmed",
    )
    parser.add_argument(
        "--detach",
        action="store_true",
        help="return once the daemon is ready, and leave it running",
    )


def do_run(args: Namespace) -> int:
    """Runs until the daemon ends, or with ``--detach`` until it is ready. Raises ConfigError."""
    found = config.find(args.config, os.environ)
    if found is None:
        raise ConfigError(
            "no configuration: name it with --config or $TASKD_CONFIG, or write "
            f"~/.config/taskd/taskd.toml or {config.SYSTEM_FILE}"
        )
    path = os.path.abspath(found)
    release = os.path.abspath(args.release) if args.release else None

    def daemon() -> int:
        from taskd.master.start import main as start

        return start(path, release)

    streams.give_to_a_daemon()
    if args.detach:
        return detach.run(lambda: outcome.guarded("taskd", daemon))
    return container_init.run(daemon) if os.getpid() == container_init.FIRST else daemon()
