"""The first stage of a new image: import the rest, adopt, confirm; or go back to the one before.

Entry: ``python -P -m taskd.takeover.first SNAPSHOT BEFORE [REASON LIMIT]``. SNAPSHOT is a
descriptor, BEFORE the Python of the image before this one. REASON (a descriptor) is there when this
image is that one and the deploy failed; LIMIT is then its soft limit on descriptors. Images of
different versions call each other by these words: further ones may follow, and are ignored here.

Until ``confirmed`` is written nothing was read, accepted, reaped, dispatched or written: so the
image before this one can be given the same snapshot and goes on as if nothing had been. That is
what happens on any exception, and when the deadline passes (a thread of its own sees to that,
also while an import hangs). A process that cannot even do that is killed by the interval timer
armed before the exec; then, as after any crash here, the next start takes what ``confirmed`` says.

In a trial (``steps.IS_TRIAL``) the verdict is written in place of both ways.

Imports next to nothing itself: whatever can fail to import must fail inside ``main``.
"""

from __future__ import annotations

import _thread
import gc
import os
import resource
import signal
import sys
import time

from taskd.upgrade import steps

DEADLINE = 10.0
"""Seconds from the first line to ``confirmed``."""


def main() -> int:
    """The exit status of the daemon, once it has served to its end."""
    gc.disable()  # nothing of what adopting makes is garbage; looking is a tenth of the pause
    fd, before = int(sys.argv[1]), sys.argv[2]
    steps.here.is_trial = os.environ.pop(steps.IS_TRIAL, None) is not None
    if steps.here.is_trial:
        return _try(fd)
    if len(sys.argv) > 3:
        return _return(fd, _read_reason(int(sys.argv[3])), sys.argv[4:5])
    decision = _thread.allocate_lock()  # the thread that takes it decides: forward or back
    limit = steps.patience(DEADLINE, steps.NEW)
    _thread.start_new_thread(_watch, (decision, fd, before, limit))
    try:
        steps.reach("first stage")
        from taskd.handoff import adopt

        adoption = adopt.Adoption(fd)
        adoption.adopt()
        steps.reach("confirm")
        _decide(decision)
        adoption.confirm()
    except BaseException as error:  # whatever it is: the old image serves on
        if steps.here.step != "confirm":
            _decide(decision)
        _go_back(fd, before, f"at the step '{steps.here.step}': {_told(error)}")
    return adoption.serve()


def _try(fd: int) -> int:
    """0 if this code can take over; whatever fails, the verdict is no."""
    try:
        steps.reach("first stage")
        from taskd.handoff import adopt

        adopt.Adoption(fd, is_trial=True).adopt()
    except BaseException as error:
        text = f"at the step '{steps.here.step}': {_told(error)}"
        os.write(1, text.encode(errors="replace")[:4000])
        os._exit(1)
    os._exit(0)  # nothing that it has made is to be ended in any way of its own


def _decide(decision: _thread.LockType) -> None:
    """Take the decision, or wait for the exec of the thread that has it: the deadline passed."""
    if not decision.acquire(blocking=False):
        _wait_for_ever()


def _return(fd: int, reason: str, limit: list[str]) -> int:
    """This is the old image again. A failure here is a crash: nothing is left to go back to."""
    from taskd.handoff import adopt

    def settled() -> None:
        for soft in limit:
            _limit_descriptors(int(soft))

    adoption = adopt.Adoption(fd, gave_back=True)
    adoption.adopt()
    return adoption.serve_on(reason, settled)


def _told(error: BaseException) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _watch(decision: _thread.LockType, fd: int, before: str, limit: float) -> None:
    """In a thread of its own: past the deadline, go back, whatever the main thread is doing."""
    time.sleep(limit)
    if decision.acquire(blocking=False):
        where = steps.here.step
        _go_back(fd, before, f"at the step '{where}': not done after {limit:g} s")


def _wait_for_ever() -> None:
    lock = _thread.allocate_lock()
    lock.acquire()
    lock.acquire()


def _go_back(fd: int, before: str, reason: str) -> None:
    """Exec the image before this one with the same snapshot and every descriptor it named.

    It may have been for want of descriptors: on the way back there are as many as there may be.
    """
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    _limit_descriptors(resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    signal.setitimer(signal.ITIMER_REAL, 2 * DEADLINE)  # that image must not hang either
    told = os.memfd_create("taskd-reason", 0)
    os.write(told, reason.encode(errors="replace")[:4096])
    os.set_inheritable(fd, True)
    for handed in steps.handed:
        os.set_inheritable(handed, True)
    room = ["-X", "title=" + " " * 64]  # as in ``posix.title``
    words = [before, "-P", *room, "-m", steps.TAKEOVER, str(fd), before, str(told), str(soft)]
    os.execv(before, words)


def _limit_descriptors(soft: int) -> None:
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (soft, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    )


def _read_reason(fd: int) -> str:
    reason = os.pread(fd, 4096, 0).decode(errors="replace")
    os.close(fd)
    return reason
