"""Telling systemd how the daemon is (sd_notify). Runs in the master; silent without systemd."""

from __future__ import annotations

import os


def is_heard() -> bool:
    """Whether a service manager listens."""
    return "NOTIFY_SOCKET" in os.environ


def forget() -> None:
    """Nobody listens any more, to us or to the image after this one."""
    os.environ.pop("NOTIFY_SOCKET", None)


def tell(*lines: str) -> bool:
    """Send these lines ("READY=1", "STATUS=…") in one message; nothing if nobody listens.

    False if it could not be sent. It is not waited for a service manager that does not read: what
    must not be missed is told again. Never raises: that the service manager cannot be told (no
    descriptor is free, say) must not stop the service, least of all in the middle of a handoff.
    """
    if not is_heard():
        return False
    try:
        from sdnotify import SystemdNotifier

        notifier = SystemdNotifier(debug=True)  # raises, instead of saying nothing
        with notifier.socket:
            notifier.socket.setblocking(False)
            notifier.notify("\n".join(map(_one_line, lines)))
    except (OSError, ImportError):
        return False
    return True


def _one_line(line: str) -> str:
    """What a status quotes must not be taken for a field of its own. As UTF-8, which systemd reads,
    in letters that the library can send (Latin-1)."""
    return " ".join(line.split()).encode(errors="replace").decode("latin-1")


def watchdog() -> float | None:
    """Seconds within which WATCHDOG=1 must come again and again; None: nobody waits for it.

    $WATCHDOG_PID names the process that is meant, which is the same after an exec.
    Source: sd_watchdog_enabled(3).
    """
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        seconds = int(os.environ.get("WATCHDOG_USEC", "")) / 1e6
    except ValueError:
        return None
    return seconds if seconds > 0 and is_heard() else None
