"""Restores the state of this process that taskd relies on and the app's import may have changed.

Runs in the zygote, and in a worker that is spawned. Libraries block signals to take them by
sigwait, close the standard descriptors as daemons do, set timers. Most of that stays as the import
left it, for the workers too. But a zygote that blocks SIGCHLD would never notice a death, and a
worker without descriptor 1 could not begin a task: such changes are undone, and the app is not
refused.
"""

from __future__ import annotations

import signal

from taskd.posix import native, process
from taskd.worker.output import SavedDescriptor

_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)

_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
"""Signals by which an operator ends a zygote."""

_UNCATCHABLE = {signal.SIGKILL, signal.SIGSTOP}


class ProcessState:
    """The state at the time this was made, before the import."""

    def __init__(self) -> None:
        self._streams = [SavedDescriptor(fd) for fd in (0, 1, 2)]
        self._ending = {number: native.getsignal(number) for number in _ENDING}

    def restore(self) -> None:
        """Restore it, after the import."""
        for held in self._streams:
            held.put_back()
        signal.set_wakeup_fd(-1)
        for timer in _TIMERS:
            signal.setitimer(timer, 0.0)
        # In the zygote's loop no handler of the app's may run: what it raises would end the loop.
        # A signal that the app handles does not end the zygote either, but for those of _ENDING,
        # whose former handlers are back.
        for number in signal.valid_signals() - _UNCATCHABLE:
            if callable(native.getsignal(number)):
                native.handle_signal(number, _nothing)
        for number, before in self._ending.items():
            native.handle_signal(number, signal.SIG_DFL if before is None else before)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        process.become_subreaper()


def _nothing(*_: object) -> None:
    """Replaces a signal handler of the app's."""
