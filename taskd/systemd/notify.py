"""Reports the daemon's state to systemd (sd_notify). Runs in the master; without systemd it does
nothing."""

from __future__ import annotations

import os


def is_heard() -> bool:
    """Whether a service manager wants to be notified."""
    return "NOTIFY_SOCKET" in os.environ


def forget() -> None:
    """Notify no more, in this image and in later ones."""
    os.environ.pop("NOTIFY_SOCKET", None)


def tell(*lines: str) -> bool:
    """Send these lines ("READY=1", "STATUS=…") in one message, if a service manager listens.

    False if it was not sent. Does not wait for a service manager that does not read: the caller
    must repeat what must not be missed. Never raises: a failed notification (out of descriptors,
    for example) must not stop the service, least of all in the middle of a handoff.
    """
    if not is_heard():
        return False
    # One line each: a newline in a quoted text would begin another field.
    text = "\n".join(" ".join(line.split()) for line in lines)
    try:
        from sdnotify import SystemdNotifier

        notifier = SystemdNotifier(debug=True)  # else it would swallow errors
        with notifier.socket:
            notifier.socket.setblocking(False)
            # As UTF-8, which systemd reads, in characters that the library can send (Latin-1).
            notifier.notify(text.encode(errors="replace").decode("latin-1"))
    except (OSError, ImportError):
        return False
    return True


def watchdog() -> float | None:
    """The longest time in seconds between two WATCHDOG=1; None: systemd has no watchdog for us.

    $WATCHDOG_PID names the process that systemd watches; the pid is the same after an exec.
    Source: sd_watchdog_enabled(3).
    """
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        seconds = int(os.environ.get("WATCHDOG_USEC", "")) / 1e6
    except ValueError:
        return None
    return seconds if seconds > 0 and is_heard() else None
