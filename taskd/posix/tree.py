"""What a process left behind: finding its descendants and killing them all.

A subreaper inherits its orphaned descendants as children, so "no child is left" means "the whole
tree is gone", whatever sessions or process groups they made. Killing goes round by round: each
dead process hands its children up to us, until a round finds none. With ``patience``, helpers
that clean up (see ``cleaners``) may end by themselves, for a moment; they count as left until then.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Collection

from taskd.posix import cleaners, native, process
from taskd.posix.cleaners import Patience


def has_children() -> bool:
    """True if this process has a child of any kind, dead ones included (one system call)."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def children() -> list[int]:
    """The pids of this process's children, zombies included.

    The kernel may skip one if another ends while the list is read (proc(5)): what two readings in
    a row agree on is whole.
    """
    found = _listed()
    while (again := _listed()) != found:
        found = again
    return found


def _listed() -> list[int]:
    """As the kernel lists them, thread by thread; a kernel built without that list costs a walk
    over all processes instead."""
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

    Call again on each SIGCHLD (or in a loop that waits for it) until it returns False. What can be
    reaped at once is not left: no SIGCHLD would come for it any more. A child that we may not kill
    (a set-user-ID program) is let be.
    """
    while found := [pid for pid in children() if pid not in spared]:
        ended = [_end(pid, os.WNOHANG, patience) for pid in found]
        if True not in ended:  # else look again: the dead have handed us their children
            return False in ended
    return False


def kill_all(spared: Collection[int] = (), let_go: Callable[[], object] = lambda: None) -> int:
    """Kill every descendant but the spared children and wait until all are gone, helpers last.

    ``let_go``: called while nothing but helpers is left: closes what of this process they wait for.
    Returns how many direct children were killed or reaped: 0 means that nothing was left behind.
    A child that we may not kill (a set-user-ID program) is let be.
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
            cleaners.rest()
        count += ended.count(True)
    return count


def _end(pid: int, flags: int, patience: Patience | None = None) -> bool | None:
    """Kill and reap one child: True if it is gone, False if not yet, None if we may not."""
    try:
        if not (patience and patience.lets_be(pid)):
            os.kill(pid, signal.SIGKILL)
        dead, _ = native.waitpid(pid, flags)
    except PermissionError:
        return None
    except (ProcessLookupError, ChildProcessError):
        return True  # whoever reaped it
    return dead != 0


def kill_session(leader: int, patience: Patience | None = None) -> bool:
    """SIGKILL to every process of the session that ``leader`` began. True if there was any.

    For leftovers that are not our descendants: those of a dead worker whose zygote died too.
    Zombies do not count: they do nothing more, and their parent may take its time to reap them.
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
