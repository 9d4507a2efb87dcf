"""Telling systemd how the daemon is (sd_notify). Runs in the master; silent without systemd."""

from __future__ import annotations

import os


def tell(*lines: str) -> None:
    """Send these lines ("READY=1", "STATUS=…") in one message; nothing if nobody listens.

    Never raises: that the service manager cannot be told (no descriptor is free, say) must not
    stop the service, least of all in the middle of a handoff.
    """
    if "NOTIFY_SOCKET" not in os.environ:
        return
    try:
        from sdnotify import SystemdNotifier

        SystemdNotifier().notify("\n".join(lines))
    except (OSError, ImportError):
        return
