"""The daemon as a service: what systemd is told, the periodic checks, the stop."""

from taskd.master.service.checks import Check, checks
from taskd.master.service.periodic import Periodic
from taskd.master.service.retention import Retention
from taskd.master.service.socket_files import SocketFiles
from taskd.master.service.stop import Stop
from taskd.master.service.systemd_status import SystemdStatus

__all__ = (
    "Check",
    "Periodic",
    "Retention",
    "SocketFiles",
    "Stop",
    "SystemdStatus",
    "checks",
)
