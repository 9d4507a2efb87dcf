"""Killing all descendants of this process, which is a subreaper.

A subreaper inherits its orphaned descendants as children, so "no child is left" means "the whole
tree is gone", whatever sessions or process groups they made. Killing goes in rounds: the children
of a killed process become ours, until a round finds none. With ``patience``, helpers that clean up
(see ``cleaners``) may end by themselves, for a moment; they count as left until then.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Collection

from taskd.posix import cleaners, native, process
from taskd.posix.cleaners import Patience


def has_children() -> bool:
    """True if this process has a child, zombies included (one system call)."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def children() -> list[int]:
    """The pids of this process's children, zombies included.

    The kernel may skip a child if another ends while the list is read (proc(5)): two equal readings
    in a row are complete.
    """
    found = _listed()
    while (again := _listed()) != found:
        found = again
    return found


def _listed() -> list[int]:
    """The children as the kernel lists them for each thread; where the kernel has no such list, by
    a walk over all processes."""
    try:
        found: list[int] = []
        for thread in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{thread}/children", encoding="ascii") as file:
                found.extend(map(int, file.read().split()))
        return found
    except FileNotFoundError:
        import psutil

        return [child.pid for child in psutil.Process().children()]


def strike(spared: Collection[int], patience: Patience | None = None) -> bool:
    """Kill and reap every child but the spared ones, without waiting. True if any is left.

    Call it again on each SIGCHLD until it returns False. A child that can be reaped at once is not
    left: no SIGCHLD would come for it. A child that we may not kill (a set-user-ID program) is
    ignored.
    """
    while found := [pid for pid in children() if pid not in spared]:
        ended = [_end(pid, os.WNOHANG, patience) for pid in found]
        if True not in ended:  # else again: the children of the dead are ours now
            return False in ended
    return False


def kill_all(spared: Collection[int] = (), let_go: Callable[[], object] = lambda: None) -> int:
    """Kill every descendant but the spared children and wait until all are gone, helpers last.

    ``let_go`` is called while only helpers are left: it closes what they wait for in this process.
    Returns how many direct children were killed or reaped; 0: there was no descendant. A child that
    we may not kill (a set-user-ID program) is ignored.
    """
    count, patience = 0, Patience()
    while has_children() and (found := [pid for pid in children() if pid not in spared]):
        if others := [pid for pid in found if not patience.lets_be(pid)]:
            ended = [_end(pid, 0) for pid in others]
            if True not in ended:
                break
        else:
            let_go()
            ended = [_end(pid, os.WNOHANG, patience) for pid in found]
            native.sleep(cleaners.PAUSE)
        count += ended.count(True)
    return count


def _end(pid: int, flags: int, patience: Patience | None = None) -> bool | None:
    """Kill and reap one child: True if it is gone, False if not yet, None if we may not kill it."""
    try:
        if not (patience and patience.lets_be(pid)):
            os.kill(pid, signal.SIGKILL)
        dead, _ = native.waitpid(pid, flags)
    except PermissionError:
        return None
    except (ProcessLookupError, ChildProcessError):
        return True  # reaped elsewhere
    return dead != 0


def kill_session(leader: int, patience: Patience | None = None) -> bool:
    """SIGKILL to every process of the session of ``leader``. True if there was any.

    For processes that are not our descendants: those of a dead worker whose zygote died too.
    Zombies do not count: they do nothing more, and their parent may reap them late.
    """
    import psutil

    found = False
    for pid in psutil.pids():
        try:
            if os.getsid(pid) == leader and pid != os.getpid() and not process.is_zombie(pid):
                if not (patience and patience.lets_be(pid)):
                    os.kill(pid, signal.SIGKILL)
                found = True
        except (ProcessLookupError, PermissionError):
            continue
    return found
