"""What is in force on this machine, and if not, why: for `taskctl doctor`."""

from __future__ import annotations

import os
from collections.abc import Collection

from taskd.paths import CONTROL_SOCKET, SUBMIT_SOCKET
from taskd.systemd import notify

Check = dict[str, object]
"""{name, ok, text}"""

BUS = "/run/dbus/system_bus_socket"
"""By which others than root speak with systemd; a user's own manager needs it no more than this."""


def checks(given: Collection[str]) -> list[Check]:
    """``given``: the sockets that systemd holds."""
    is_service = notify.is_heard()
    own = sorted({CONTROL_SOCKET, SUBMIT_SOCKET}.difference(given))
    if own:
        text = f"{' and '.join(own)}: the daemon's own, closed while it restarts; clients try again"
        found = [_check("sockets", not is_service, text)]
    else:
        text = "held by systemd: who connects while the daemon restarts is answered after it"
        found = [_check("sockets", True, text)]
    return [*found, _watchdog(), _stops()] if is_service else found


def _check(name: str, ok: bool, text: str) -> Check:
    return {"name": name, "ok": ok, "text": text}


def _watchdog() -> Check:
    seconds = notify.watchdog()
    if seconds is None:
        return _check("watchdog", False, "not in force: the unit has no WatchdogSec=")
    text = f"a daemon that hangs for {seconds:g} s is ended and started again"
    return _check("watchdog", True, text)


def _stops() -> Check:
    if os.path.exists(BUS) or os.getuid() == 0:
        return _check("stops", True, "told from restarts, by the unit's job")
    text = (
        f"taken for restarts, since systemd cannot be asked ({BUS} is missing): what does not "
        "leave goes on without a daemon, until [daemon] orphan_grace is over"
    )
    return _check("stops", False, text)
