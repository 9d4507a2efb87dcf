"""What is in force on this machine, and if not, why: for `taskctl doctor`. In the master."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from taskd.paths import CONTROL_SOCKET, SUBMIT_SOCKET
from taskd.systemd import notify

if TYPE_CHECKING:
    from taskd.master.master import Master

Check = dict[str, object]
"""{name, ok, text}"""

BUS = "/run/dbus/system_bus_socket"
"""By which others than root speak with systemd; a user's own manager needs it no more than this."""


def checks(master: Master) -> list[Check]:
    found = [*master.groups.checks(), _sockets(master)]
    return [*found, _watchdog(), _stops()] if notify.is_heard() else found


def _sockets(master: Master) -> Check:
    own = sorted({CONTROL_SOCKET, SUBMIT_SOCKET} - master.given)
    if not own:
        text = "held by systemd: who connects while the daemon restarts is answered after it"
        return {"name": "sockets", "ok": True, "text": text}
    text = f"{' and '.join(own)}: the daemon's own, closed while it restarts; clients try again"
    return {"name": "sockets", "ok": not notify.is_heard(), "text": text}


def _watchdog() -> Check:
    seconds = notify.watchdog()
    if seconds is None:
        return {
            "name": "watchdog",
            "ok": False,
            "text": "not in force: the unit has no WatchdogSec=",
        }
    text = f"a daemon that hangs for {seconds:g} s is ended and started again"
    return {"name": "watchdog", "ok": True, "text": text}


def _stops() -> Check:
    name = "stops"
    if os.path.exists(BUS) or os.getuid() == 0:
        return {"name": name, "ok": True, "text": "told from restarts, by the unit's job"}
    text = (
        f"taken for restarts, since systemd cannot be asked ({BUS} is missing): what does not "
        "leave goes on without a daemon, until [daemon] orphan_grace is over"
    )
    return {"name": name, "ok": False, "text": text}
