"""The daemon beside which systemd runs a command (``ExecReload=``, ``ExecStop=``). In ``taskctl``.

What can go wrong: systemd holds the socket, so that one may be connected with a daemon that has not
taken the connection and never will, since it hung and was killed. The command would wait for the
next daemon, and systemd, before it starts that one, for the end of the command. So it ends with
the daemon that was there when it began, which systemd names in $MAINPID.

Source: systemd.exec(5).
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Mapping

from taskd.cli import outcome
from taskd.errors import NoDaemon

VARIABLE = "MAINPID"

LAST_WORDS = 1.0
"""Seconds to read what the daemon said before it ended; what it did not say never comes."""


def end_with_it(environ: Mapping[str, str]) -> None:
    """End this process soon after the daemon, if it is a command of the unit. Raises NoDaemon if
    that is gone already."""
    named = environ.get(VARIABLE, "")
    if not named.isdecimal():
        return
    try:
        daemon = os.pidfd_open(int(named))
    except ProcessLookupError:
        raise NoDaemon(_ended(named)) from None
    threading.Thread(target=_watch, args=[daemon, named], daemon=True).start()


def _watch(daemon: int, named: str) -> None:
    poll = select.poll()
    poll.register(daemon, select.POLLIN)
    poll.poll()
    time.sleep(LAST_WORDS)
    outcome.say("taskctl", _ended(named))
    os._exit(outcome.NO_DAEMON)


def _ended(named: str) -> str:
    return f"the daemon (pid {named}) ended before it answered"
