"""Identity and state of processes, and switches of this one (subreaper, parent-death signal).

A pid alone is ambiguous, since the kernel reuses pids. An ``Identity`` is pid, start time and boot
id: no two processes share one. Source: proc(5), field 22 of /proc/PID/stat.
"""

from __future__ import annotations

import functools
import os
import signal

from taskd.posix import native
from taskd.record import Record

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PR_GET_CHILD_SUBREAPER = 37
_ENDED = ("Z", "X")


class Identity(Record):
    """Names one process, for ever: ``start`` is in clock ticks since the boot of id ``boot``."""

    pid: int
    start: int
    boot: str


@functools.cache
def boot_id() -> str:
    """The random id of this boot of the machine."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat behind the process's name; None if there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            text = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text[text.rindex(")") + 2 :].split()  # the name may hold spaces and parentheses


def start_time(pid: int) -> int | None:
    """Start time of ``pid`` in clock ticks since boot, or None if there is no such process."""
    fields = stat(pid)
    return None if fields is None else int(fields[19])


def identity(pid: int | None = None) -> Identity:
    """The identity of a living process (default: this one). Raises ProcessLookupError."""
    number = os.getpid() if pid is None else pid
    start = start_time(number)
    if start is None:
        raise ProcessLookupError(f"no process {number}")
    return Identity(number, start, boot_id())


def is_gone(who: Identity) -> bool:
    """True if this process is dead: of an earlier boot, reaped, or a zombie."""
    if who.boot != boot_id():
        return True
    fields = stat(who.pid)
    return fields is None or int(fields[19]) != who.start or fields[0] in _ENDED


def kill(who: Identity) -> None:
    """SIGKILL to this process; nothing if it is gone."""
    try:
        fd = os.pidfd_open(who.pid)
    except ProcessLookupError:
        return
    except OSError:  # out of descriptors: kill by pid
        if not is_gone(who):
            os.kill(who.pid, signal.SIGKILL)
        return
    try:
        if not is_gone(who):  # asked while the pidfd keeps the pid from being reused
            signal.pidfd_send_signal(fd, signal.SIGKILL)
    except ProcessLookupError:
        pass
    finally:
        native.close(fd)


def is_stopped(pid: int) -> bool:
    """True for a process that is stopped, until SIGCONT or by its debugger."""
    fields = stat(pid)
    return fields is not None and fields[0] in ("T", "t")


def name(pid: int) -> str | None:
    """The process's short name (comm): its program's, or one that it has set itself."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().rstrip("\n")
    except (FileNotFoundError, ProcessLookupError):
        return None


def is_zombie(pid: int) -> bool:
    """True for a process that has ended and is not reaped yet; False if there is none."""
    fields = stat(pid)
    return fields is not None and fields[0] in _ENDED


def become_subreaper() -> None:
    """Make this process the parent of its orphaned descendants (prctl(2), survives exec)."""
    from taskd.posix import libc

    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise libc.error("prctl(PR_SET_CHILD_SUBREAPER)")


def end_with_parent(parent: int, by: int = signal.SIGKILL) -> None:
    """Have the kernel send this process the signal ``by`` when its parent, whose pid is ``parent``,
    dies; 0: no longer. Children do not inherit that; an exec keeps it."""
    from taskd.posix import libc

    if libc.prctl(_PR_SET_PDEATHSIG, by if parent else 0, 0, 0, 0) != 0:
        raise libc.error("prctl(PR_SET_PDEATHSIG)")
    if parent and os.getppid() != parent:  # the parent died before the call
        os.kill(os.getpid(), by)


def is_subreaper() -> bool:
    """Whether this process is a subreaper still: user code may have changed that."""
    import ctypes

    from taskd.posix import libc

    answer = ctypes.c_int()
    return libc.prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(answer), 0, 0, 0) == 0 and (
        answer.value != 0
    )
