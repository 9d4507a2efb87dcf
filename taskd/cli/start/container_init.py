"""``taskd run`` as a container's first process: a parent for orphans, with the daemon as its child.

The first process of a pid namespace inherits every other orphan in it (of `docker exec`, say),
which the daemon could not tell from leftovers of its tasks. So the first process is
this small one: it reaps every process that dies, passes every signal on to the daemon, and ends
with it, with its exit status (128 and the signal's number if it was killed); the kernel then ends
what is left in the container.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress

FIRST = 1

_OURS = {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}


def run(daemon: Callable[[], int]) -> int:
    """Returns twice: in the first process at the daemon's end, in the daemon with its status."""
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
