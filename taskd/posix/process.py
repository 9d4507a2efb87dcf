"""Who a process is, whether it is gone, and the process-wide switches taskd uses.

A pid alone proves nothing (it is reused). An ``Identity`` is pid, start time and boot id: two
processes never share one. Source: proc(5), field 22 of /proc/PID/stat.
"""

from __future__ import annotations

import os
import signal

from taskd.posix import native
from taskd.record import Record

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PR_GET_CHILD_SUBREAPER = 37
_ENDED = ("Z", "X")


class Identity(Record):
    """One process for ever: ``start`` is in clock ticks since the boot that ``boot`` names."""

    pid: int
    start: int
    boot: str


_boot: str | None = None


def boot_id() -> str:
    """The random id of this boot of the machine."""
    global _boot
    if _boot is None:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            _boot = file.read().strip()
    return _boot


def _stat(pid: int) -> list[str] | None:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            text = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text[text.rindex(")") + 2 :].split()  # the name may hold spaces and parentheses


def start_time(pid: int) -> int | None:
    """Start time of ``pid`` in clock ticks since boot, or None if there is no such process."""
    fields = _stat(pid)
    return None if fields is None else int(fields[19])


def identity(pid: int | None = None) -> Identity:
    """The identity of a living process (default: this one). Raises ProcessLookupError."""
    number = os.getpid() if pid is None else pid
    start = start_time(number)
    if start is None:
        raise ProcessLookupError(f"no process {number}")
    return Identity(number, start, boot_id())


def is_gone(who: Identity) -> bool:
    """True once that very process is dead: never started on this boot, reaped, or a zombie."""
    if who.boot != boot_id():
        return True
    fields = _stat(who.pid)
    return fields is None or int(fields[19]) != who.start or fields[0] in _ENDED


def kill(who: Identity) -> None:
    """SIGKILL to that very process; nothing if it is gone."""
    try:
        fd = os.pidfd_open(who.pid)
    except ProcessLookupError:
        return
    except OSError:  # out of descriptors: the pid must do
        if not is_gone(who):
            os.kill(who.pid, signal.SIGKILL)
        return
    try:
        if not is_gone(who):  # looked at while the descriptor holds the pid's meaning
            signal.pidfd_send_signal(fd, signal.SIGKILL)
    except ProcessLookupError:
        pass
    finally:
        native.close(fd)


def is_stopped(pid: int) -> bool:
    """True for a process that does nothing until SIGCONT, or for its debugger."""
    fields = _stat(pid)
    return fields is not None and fields[0] in ("T", "t")


def name(pid: int) -> str | None:
    """What the kernel calls it: its program's name, or what it calls itself."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().rstrip("\n")
    except (FileNotFoundError, ProcessLookupError):
        return None


def is_zombie(pid: int) -> bool:
    """True for a process that has ended and is not reaped yet; False if there is none."""
    fields = _stat(pid)
    return fields is not None and fields[0] in _ENDED


def become_subreaper() -> None:
    """Make this process the parent of its orphaned descendants (prctl(2), survives exec)."""
    from taskd.posix import libc

    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise libc.error("prctl(PR_SET_CHILD_SUBREAPER)")


def end_with_parent(parent: int) -> None:
    """SIGKILL to this process when ``parent`` dies (that of now, if it is its pid); 0: no longer.

    Its own children are not concerned."""
    from taskd.posix import libc

    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL if parent else 0, 0, 0, 0) != 0:
        raise libc.error("prctl(PR_SET_PDEATHSIG)")
    if parent and os.getppid() != parent:  # it died before that
        os.kill(os.getpid(), signal.SIGKILL)


def is_subreaper() -> bool:
    """Whether this process still is one: any code in it may have changed that."""
    import ctypes

    from taskd.posix import libc

    answer = ctypes.c_int()
    return libc.prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(answer), 0, 0, 0) == 0 and (
        answer.value != 0
    )
