"""What answers clients, put together: connections, streams, and a handler for each request."""

from __future__ import annotations

from collections.abc import Callable

from taskd.config import Config
from taskd.master.attempts import Attempts, Dispatch, Pauses
from taskd.master.clients.changing import Changing
from taskd.master.clients.clients import Clients
from taskd.master.clients.daemon_requests import DaemonRequests
from taskd.master.clients.housekeeping import Housekeeping
from taskd.master.clients.new_tasks import NewTasks
from taskd.master.clients.peer_limits import PeerLimits
from taskd.master.clients.queues import Queues
from taskd.master.clients.reasons import Reasons
from taskd.master.clients.schedule_requests import ScheduleRequests
from taskd.master.clients.shares import Shares
from taskd.master.clients.steering import Steering
from taskd.master.clients.streams import Streams
from taskd.master.clients.task_requests import TaskRequests
from taskd.master.clients.taskviews import TaskViews
from taskd.master.clients.wait_cycles import WaitCycles
from taskd.master.deploy import Deploy
from taskd.master.fleet import Revisions, Workers
from taskd.master.loop import Life, Loop, Storage
from taskd.master.schedules import Schedules
from taskd.master.service import Check, Stop
from taskd.paths import Places


class Serving:
    """Owns ``clients`` and ``streams``. ``checks``: what taskctl doctor shows."""

    def __init__(
        self,
        loop: Loop,
        life: Life,
        config: Config,
        places: Places,
        storage: Storage,
        revisions: Revisions,
        workers: Workers,
        attempts: Attempts,
        dispatch: Dispatch,
        pauses: Pauses,
        schedules: Schedules,
        deploy: Deploy,
        stop: Stop,
        checks: Callable[[], list[Check]],
    ) -> None:
        limits = PeerLimits(loop)
        views = TaskViews(loop.troubles, places, revisions, attempts, dispatch, pauses, config)
        queues = Queues(loop.troubles, config, storage, revisions, dispatch.concurrency)
        shares = Shares(loop.troubles, config.access, places.state)
        self.clients = Clients(loop, config, limits)
        self.streams = Streams(loop, storage, attempts, limits, views)
        tasks = TaskRequests(
            places,
            storage,
            revisions,
            attempts,
            dispatch,
            limits,
            NewTasks(revisions, queues),
            shares,
            self.streams,
            views,
            WaitCycles(dispatch.concurrency, places, attempts, self.streams),
        )
        daemon = DaemonRequests(
            loop.troubles,
            life,
            config,
            places.confirmed,
            storage,
            revisions,
            workers,
            attempts,
            deploy,
            stop,
            checks,
            queues,
            pauses,
        )
        steering = Steering(storage, dispatch, pauses, queues)
        keeping = Housekeeping(places, storage, self.streams.has_to_tell)
        planned = ScheduleRequests(storage, dispatch, schedules)
        changing = Changing(storage, attempts, dispatch, queues, shares)
        reasons = Reasons(storage, views, dispatch, pauses)
        parts = (tasks, daemon, steering, keeping, planned, changing, reasons)
        self.clients.handlers = {op: each for part in parts for op, each in part.handlers().items()}
