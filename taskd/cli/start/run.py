"""``taskd run``: find the configuration and become the daemon, which is ``taskd.master``.

A container's first process inherits every other orphan of its pid namespace (of `docker exec`,
say), which the daemon could not tell from leftovers of its tasks. So the first process is a small
one, with the daemon as its child: it reaps every process that dies, passes every signal on to the
daemon, and ends with it, with its exit status (128 and the signal's number if it was killed); the
kernel then ends what is left in the container.
"""

from __future__ import annotations

import os
import signal
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from contextlib import suppress

from taskd import config
from taskd.cli import outcome
from taskd.cli.output import streams
from taskd.cli.start import detach
from taskd.errors import ConfigError

_OURS = {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}


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
    return _as_init(daemon) if os.getpid() == 1 else daemon()


def _as_init(daemon: Callable[[], int]) -> int:
    """Run ``daemon`` as the child of this process, a container's first.

    Returns twice: in the first process at the daemon's end, in the daemon with its status.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    before = signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
    child = os.fork()
    if child == 0:
        os.setsid()  # else a terminal's Ctrl-C would come twice: from it, and from us
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return daemon()
    while True:  # the signals are blocked, so that they wait for us, ignored ones too
        number = signal.sigwait(signal.valid_signals())
        if number not in _OURS:
            os.kill(child, number)
        elif (status := _reap(child)) is not None:
            return status if status >= 0 else 128 - status


def _reap(child: int) -> int | None:
    """Reap every process that has died; the child's exit status if it is among them."""
    found = None
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0] != 0:
            if ended[0] == child:
                found = os.waitstatus_to_exitcode(ended[1])
    return found
