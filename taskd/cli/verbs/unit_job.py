"""Why a unit stops: for good, or as the first half of a restart. Runs in ``taskctl``.

systemd says so by the type of the unit's job, and by nothing else: $SERVICE_RESULT and the signal
are the same for both.
"""

from __future__ import annotations

import subprocess

ASK_WITHIN = 10.0
"""Seconds that the service manager has to answer."""


def is_for_good(unit: str, of_user: bool = False) -> bool | None:
    """Whether ``unit`` is being stopped (True) or restarted (False); None: neither, or unknown.

    ``of_user``: it is a unit of the user's own service manager.
    """
    words = ["systemctl", *["--user"] * of_user, "list-jobs", "--no-legend", "--plain", "--full"]
    try:
        asked = subprocess.run(
            [*words, unit],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            timeout=ASK_WITHIN,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    jobs = [line.split() for line in asked.stdout.splitlines()]
    kinds = {job[2] for job in jobs if len(job) > 2 and job[1] == unit}
    if "stop" in kinds:
        return True
    return False if any(kind.endswith("restart") for kind in kinds) else None
