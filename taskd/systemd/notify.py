"""Telling systemd how the daemon is (sd_notify). Runs in the master; silent without systemd."""

from __future__ import annotations

import os


def tell(*lines: str) -> None:
    """Send these lines ("READY=1", "STATUS=…") in one message; nothing if nobody listens."""
    if "NOTIFY_SOCKET" not in os.environ:
        return
    from sdnotify import SystemdNotifier

    SystemdNotifier().notify("\n".join(lines))
