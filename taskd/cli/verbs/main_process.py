"""The daemon beside which systemd runs a command (``ExecReload=``, ``ExecStop=``). In ``taskctl``.

What can go wrong: systemd holds the socket, so that taskctl may be connected although the daemon
hung and was killed before it accepted. taskctl would wait for the next daemon, and systemd would
wait for taskctl before it starts that one. So a waiting taskctl ends with the daemon that ran when
it began, whose pid systemd gives in $MAINPID.

And a stop of the unit terminates a reload that is under way, together with the daemon. A command
that fails then, or that the signal kills, makes the unit "failed" although the stop was asked for.
The daemon's refusal may arrive before that signal.

Source: systemd.exec(5), systemd.service(5).
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

from taskd.cli import outcome
from taskd.errors import NoDaemon, Refused

VARIABLE = "MAINPID"

LAST_WORDS = 1.0
"""Seconds to read what the daemon sent before it ended."""

SIGNALLED_WITHIN = 5.0
"""Seconds in which systemd signals us once it has signalled the daemon. If systemd did not signal
the daemon, the refusal is told after them."""

ASK_WITHIN = 10.0
"""Seconds that the service manager has to answer."""


@contextmanager
def ending_with_it(environ: Mapping[str, str]) -> Iterator[None]:
    """While the body waits for an answer, end this process soon after the daemon, if systemd runs
    it for the unit. Raises NoDaemon if the daemon is gone already."""
    if not _is_of_unit(environ):
        yield
        return
    named, answered = environ[VARIABLE], threading.Event()
    try:
        daemon = os.pidfd_open(int(named))
    except ProcessLookupError:
        raise NoDaemon(_ended(named)) from None
    threading.Thread(target=_watch, args=[daemon, named, answered], daemon=True).start()
    try:
        yield
    finally:
        answered.set()


@contextmanager
def giving_way_to_a_stop(environ: Mapping[str, str], stops: Callable[[], bool]) -> Iterator[None]:
    """In the body SIGTERM ends this process with status 0, if systemd runs it for the unit.
    ``stops``: whether the daemon stops; if so, a refusal is held back for that signal."""
    if not _is_of_unit(environ):
        yield
        return
    signal.signal(signal.SIGTERM, _give_way)
    try:
        yield
    except Refused:
        if stops():
            time.sleep(SIGNALLED_WITHIN)
        raise
    finally:
        # Not as it was before: Python's end puts the default in the place of a handler.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _give_way(_number: int, _frame: FrameType | None) -> None:
    outcome.say("the unit is being stopped: what becomes of this is not waited for")
    os._exit(outcome.DONE)


def _is_of_unit(environ: Mapping[str, str]) -> bool:
    return environ.get(VARIABLE, "").isdecimal()


def _watch(daemon: int, named: str, answered: threading.Event) -> None:
    poll = select.poll()
    poll.register(daemon, select.POLLIN)
    poll.poll()
    if not answered.wait(LAST_WORDS):
        outcome.say(_ended(named))
        os._exit(outcome.NO_DAEMON)


def _ended(named: str) -> str:
    return f"the daemon (pid {named}) ended before it answered"


def is_for_good(unit: str, of_user: bool = False) -> bool | None:
    """Whether ``unit`` is being stopped (True) or restarted (False); None: neither, or unknown.

    systemd says so by the type of the unit's job, and by nothing else: $SERVICE_RESULT and the
    signal are the same for both. ``of_user``: it is a unit of the user's own service manager.
    """
    words = ["systemctl", *["--user"] * of_user, "list-jobs", "--no-legend", "--plain", "--full"]
    try:
        asked = subprocess.run(
            [*words, unit],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            timeout=ASK_WITHIN,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    jobs = [line.split() for line in asked.stdout.splitlines()]
    kinds = {job[2] for job in jobs if len(job) > 2 and job[1] == unit}
    if "stop" in kinds:
        return True
    return False if any(kind.endswith("restart") for kind in kinds) else None
