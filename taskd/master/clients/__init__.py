"""Clients: their connections, their limits, and what each request does."""

from taskd.master.clients.clients import Clients
from taskd.master.clients.daemon_requests import DaemonRequests
from taskd.master.clients.peer_limits import PeerLimits
from taskd.master.clients.queues import Queues
from taskd.master.clients.serving import Serving
from taskd.master.clients.shares import Shares
from taskd.master.clients.streams import Streams
from taskd.master.clients.task_requests import TaskRequests
from taskd.master.clients.taskviews import TaskViews
from taskd.master.clients.wait_cycles import WaitCycles

__all__ = (
    "Clients",
    "DaemonRequests",
    "PeerLimits",
    "Queues",
    "Serving",
    "Shares",
    "Streams",
    "TaskRequests",
    "TaskViews",
    "WaitCycles",
)
