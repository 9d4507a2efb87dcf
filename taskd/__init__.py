"""taskd: deploy as often as you like while tasks that run for hours carry on.

The public names are resolved when first used, so that ``import taskd`` costs next to nothing in
the many processes that need only one of them.
"""

from __future__ import annotations

__version__ = "0.3.0.dev0"

_HOME = {
    "AsyncClient": "taskd.client.aio",
    "AsyncContext": "taskd.api.async_context",
    "BadArguments": "taskd.errors",
    "Cancel": "taskd.api.own_ends",
    "Client": "taskd.client.blocking",
    "Context": "taskd.api.context",
    "Error": "taskd.errors",
    "Fail": "taskd.api.own_ends",
    "FINISHED": "taskd.api.saved_state",
    "Interrupted": "taskd.api.interrupt",
    "KeyConflict": "taskd.errors",
    "LimitReached": "taskd.errors",
    "NoDaemon": "taskd.errors",
    "NotPlainData": "taskd.errors",
    "Refused": "taskd.errors",
    "Retry": "taskd.api.own_ends",
    "SavedState": "taskd.api.saved_state",
    "Secret": "taskd.protocol.secret",
    "TaskCancelled": "taskd.errors",
    "TaskFailed": "taskd.errors",
    "TaskHeld": "taskd.errors",
    "TaskEnd": "taskd.api.hooks",
    "TaskInfo": "taskd.api.hooks",
    "TimedOut": "taskd.api.interrupt",
    "UnknownTask": "taskd.errors",
    "current": "taskd.api.context",
    "limit": "taskd.api.limits",
    "on_task_end": "taskd.api.hooks",
    "on_task_start": "taskd.api.hooks",
    "on_worker_start": "taskd.api.hooks",
    "on_worker_stop": "taskd.api.hooks",
    "batch": "taskd.batches",
    "task": "taskd.tasks",
}

__all__ = ["__version__", *_HOME]

TYPE_CHECKING = False  # as of ``typing``, which is slow to import
if TYPE_CHECKING:
    from typing import Any

    from taskd.api.async_context import AsyncContext as AsyncContext
    from taskd.api.context import Context as Context, current as current
    from taskd.api.hooks import (
        TaskEnd as TaskEnd,
        TaskInfo as TaskInfo,
        on_task_end as on_task_end,
        on_task_start as on_task_start,
        on_worker_start as on_worker_start,
        on_worker_stop as on_worker_stop,
    )
    from taskd.api.interrupt import Interrupted as Interrupted, TimedOut as TimedOut
    from taskd.api.limits import limit as limit
    from taskd.api.own_ends import Cancel as Cancel, Fail as Fail, Retry as Retry
    from taskd.api.saved_state import FINISHED as FINISHED, SavedState as SavedState
    from taskd.batches import batch as batch
    from taskd.client.aio import AsyncClient as AsyncClient
    from taskd.client.blocking import Client as Client
    from taskd.errors import (
        BadArguments as BadArguments,
        Error as Error,
        KeyConflict as KeyConflict,
        LimitReached as LimitReached,
        NoDaemon as NoDaemon,
        NotPlainData as NotPlainData,
        Refused as Refused,
        TaskCancelled as TaskCancelled,
        TaskFailed as TaskFailed,
        TaskHeld as TaskHeld,
        UnknownTask as UnknownTask,
    )
    from taskd.protocol.secret import Secret as Secret
    from taskd.tasks import task as task


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'taskd' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(home), name)
    globals()[name] = value
    return value
