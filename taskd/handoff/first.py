"""The first stage of a new image: import the rest, adopt, confirm; or go back to the one before.

Entry: ``python -P -m taskd.takeover.first SNAPSHOT BEFORE [REASON LIMIT]``. SNAPSHOT is a
descriptor, BEFORE the Python of the image before this one. REASON (a descriptor) is there when this
image is that one and the deploy failed; LIMIT is then its soft limit on descriptors. Images of
different versions call each other by these words: further ones may follow, and are ignored here.

Until ``confirmed`` is written, this image reads, accepts, reaps, dispatches and writes nothing. So
it can exec the image before it with the same snapshot, which goes on as before. It does so on any
exception, and when the deadline passes (a second thread execs, also while an import hangs). If that
fails too, the interval timer armed before the exec kills the process; then, as after any crash
here, the next start runs the release that ``confirmed`` names.

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
    gc.disable()  # adopting makes no garbage; collecting would be a tenth of the pause
    fd, before = int(sys.argv[1]), sys.argv[2]
    steps.here.is_trial = os.environ.pop(steps.IS_TRIAL, None) is not None
    if steps.here.is_trial:
        return _try(fd)
    if len(sys.argv) > 3:
        return _return(fd, int(sys.argv[3]), sys.argv[4:5])
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
    """Exit 0 if this code can take over, 1 with the reason on descriptor 1 if any step fails."""
    try:
        steps.reach("first stage")
        from taskd.handoff import adopt

        adopt.Adoption(fd, is_trial=True).adopt()
    except BaseException as error:
        text = f"at the step '{steps.here.step}': {_told(error)}"
        os.write(1, text.encode(errors="replace")[:4000])
        os._exit(1)
    os._exit(0)  # no destructor and no exit handler may run


def _decide(decision: _thread.LockType) -> None:
    """Take the decision. If the deadline's thread has it, wait for that thread's exec, for ever."""
    if not decision.acquire(blocking=False):
        lock = _thread.allocate_lock()
        lock.acquire()
        lock.acquire()


def _return(fd: int, reason_fd: int, limit: list[str]) -> int:
    """This is the old image again. A failure here is a crash: there is no image to go back to."""
    reason = os.pread(reason_fd, 4096, 0).decode(errors="replace")
    os.close(reason_fd)
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
    """Runs in its own thread: past the deadline go back, whatever the main thread is doing."""
    time.sleep(limit)
    if decision.acquire(blocking=False):
        where = steps.here.step
        _go_back(fd, before, f"at the step '{where}': not done after {limit:g} s")


def _go_back(fd: int, before: str, reason: str) -> None:
    """Exec the image before this one with the same snapshot and every descriptor it named.

    The failure may have been EMFILE: the way back has the hard limit of descriptors.
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
