"""What the app's import may have changed of this process that taskd's own work in it relies on.

Runs in the zygote, and in a worker that is spawned afresh. Libraries block signals to take them by
sigwait, close the standard descriptors as daemons do, set timers. Most of it is the app's affair,
and workers find it as the import left it; but a zygote that is deaf to SIGCHLD would never notice a
death, and a worker without descriptor 1 could not begin a task. That is put right, not refused.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType

from taskd.posix import native, process
from taskd.worker.output import SavedDescriptor

_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)

_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
"""Signals by which whoever may ends a zygote."""

_UNCATCHABLE = {signal.SIGKILL, signal.SIGSTOP}


class ProcessState:
    """As it was when this was made: before the import."""

    def __init__(self) -> None:
        self._streams = [SavedDescriptor(fd) for fd in (0, 1, 2)]
        self._ending = {number: native.getsignal(number) for number in _ENDING}

    def restore(self) -> None:
        """Put it right, once the app is imported."""
        for held in self._streams:
            held.put_back()
        signal.set_wakeup_fd(-1)
        for timer in _TIMERS:
            signal.setitimer(timer, 0.0)
        _silence(self._ending)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        process.become_subreaper()


Handler = Callable[[int, FrameType | None], object] | int | None


def _silence(ending: dict[signal.Signals, Handler]) -> None:
    """No handler of the app's runs in the zygote's loop, where what it raises would end it. What
    the app handles does not end it either, but for ``ending``, which do as they did."""
    for number in signal.valid_signals() - _UNCATCHABLE:
        if callable(native.getsignal(number)):
            native.handle_signal(number, _nothing)
    for number, before in ending.items():
        native.handle_signal(number, signal.SIG_DFL if before is None else before)


def _nothing(*_: object) -> None:
    """In place of a handler of the app's."""
