"""Which of the service manager's means are in force, and if not, why: for `taskctl doctor`."""

from __future__ import annotations

import os
from collections.abc import Collection

from taskd.paths import CONTROL_SOCKET, SUBMIT_SOCKET
from taskd.systemd import notify

Check = dict[str, object]
"""{name, ok, text}"""

BUS = "/run/dbus/system_bus_socket"
"""The socket by which users other than root speak with systemd."""


def checks(given: Collection[str]) -> list[Check]:
    """``given``: the sockets that systemd holds."""
    is_service = notify.is_heard()
    found = {}
    if own := sorted({CONTROL_SOCKET, SUBMIT_SOCKET}.difference(given)):
        found["sockets"] = (
            not is_service,
            f"{' and '.join(own)}: the daemon's own, closed while it restarts; clients try again",
        )
    else:
        found["sockets"] = (
            True,
            "held by systemd: who connects while the daemon restarts is answered after it",
        )
    if is_service:
        if (seconds := notify.watchdog()) is None:
            found["watchdog"] = (False, "not in force: the unit has no WatchdogSec=")
        else:
            found["watchdog"] = (
                True,
                f"a daemon that hangs for {seconds:g} s is ended and started again",
            )
        if os.path.exists(BUS) or os.getuid() == 0:
            found["stops"] = (True, "told from restarts, by the unit's job")
        else:
            found["stops"] = (
                False,
                f"taken for restarts, since systemd cannot be asked ({BUS} is missing): what does "
                "not leave goes on without a daemon, until [daemon] orphan_grace is over",
            )
    return [{"name": name, "ok": ok, "text": text} for name, (ok, text) in found.items()]
