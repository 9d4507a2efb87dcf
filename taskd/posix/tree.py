"""What a process left behind: finding its descendants and killing them all.

A subreaper inherits its orphaned descendants as children, so "no child is left" means "the whole
tree is gone", whatever sessions or process groups they made. Killing goes round by round: each
dead process hands its children up to us, until a round finds none.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Collection


def has_children() -> bool:
    """True if this process has a child of any kind, dead ones included (one system call)."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def children() -> list[int]:
    """The pids of this process's children, zombies included.

    The kernel lists them by thread (proc(5)); a kernel built without that list costs a walk over
    all processes instead.
    """
    try:
        found: list[int] = []
        for thread in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{thread}/children", encoding="ascii") as file:
                found.extend(map(int, file.read().split()))
        return found
    except FileNotFoundError:
        import psutil

        return [child.pid for child in psutil.Process().children()]


def strike(spared: Collection[int]) -> bool:
    """Kill and reap every child but the spared ones, without waiting. True if any is left.

    Call again on each SIGCHLD (or in a loop that waits for it) until it returns False.
    """
    left = False
    for pid in children():
        if pid in spared:
            continue
        left = True
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, os.WNOHANG)
        except (ProcessLookupError, ChildProcessError):
            continue
    return left


def kill_all(spared: Collection[int] = ()) -> int:
    """Kill every descendant but the spared children and wait until all are gone.

    Returns how many direct children were killed or reaped: 0 means that nothing was left behind.
    """
    count = 0
    while has_children():
        found = [pid for pid in children() if pid not in spared]
        if not found:
            break
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            except (ProcessLookupError, ChildProcessError):
                continue
            count += 1
    return count


def kill_session(leader: int) -> bool:
    """SIGKILL to every process of the session that ``leader`` began. True if there was any.

    For leftovers that are not our descendants: those of a dead worker whose zygote died too.
    """
    import psutil

    found = False
    for pid in psutil.pids():
        try:
            if os.getsid(pid) == leader and pid != os.getpid():
                os.kill(pid, signal.SIGKILL)
                found = True
        except (ProcessLookupError, PermissionError):
            continue
    return found
