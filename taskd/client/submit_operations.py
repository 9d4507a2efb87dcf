"""How a client submits a task; for ``Client`` and ``AsyncClient``."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Generic

from taskd.client import new_task
from taskd.client.new_task import After
from taskd.client.operations import H, Operation, Steps, field, request
from taskd.errors import ProtocolError
from taskd.protocol import submission

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime


class SubmitOperations(Generic[H]):
    """``handle``: see ``Operations``."""

    if TYPE_CHECKING:
        handle: Callable[[int], H]

    @Operation
    def submit(
        self,
        name: str,
        args: dict[str, Any] | None = None,
        *,
        key: str | None = None,
        if_exists: str | None = None,
        key_for: float | str | None = None,
        at_most: float | str | None = None,
        priority: int = 0,
        queue: str | None = None,
        delay: float | None = None,
        at: datetime | None = None,
        retries: int | None = None,
        expires: float | str | None = None,
        timeout: float | str | None = None,
        after: After = (),
        if_failed: str | None = None,
        child: tuple[int, int, str, bool] | None = None,
        options: dict[str, Any] | None = None,
    ) -> Steps[H]:
        """Queue a task; once this returns, it is on disk.

        ``args``: plain data by name, at most 1 MiB. ``key``: while a task of yours with that key
        lives, it is returned instead (``created`` of the handle is False then), or as ``if_exists``
        says: "join" (this), "refuse", or "replace-waiting": one that has not begun gets these
        arguments and this time, and beside one that runs a second waits. ``key_for``: seconds, or a
        text such as "1d", for which the key is the task's also once it has succeeded. ``at_most``:
        for how long a ``delay`` may put off one that is replaced again and again (ten delays).

        ``priority``: higher goes first. ``delay``: seconds before it may start, or ``at``: the
        time, a datetime with its zone. ``expires``: seconds, or a text, after which it is cancelled
        if it has not started; ``timeout``: how long one try may run, likewise. ``after``: tasks
        (ids or handles, 1,000 at most) that are to succeed before it runs; ``if_failed``: what
        happens if one fails or is cancelled: "hold" (it waits until that one has succeeded after
        all), "cancel" or "run". ``options``: for the built-in ``command`` task, {"on_deploy":
        "checkpoint"}.
        Raises UnknownTask, BadArguments, NotPlainData, KeyConflict.
        """
        task: dict[str, Any] = {
            # Sent twice, it is still one task.
            "submission": submission.timed(time.time(), os.urandom(8)),
            "submission_kind": submission.TIMED,
            "name": name,
            "args": new_task.encoded({} if args is None else args),
            "key": key,
            "priority": priority,
            "queue": queue,
            "delay": delay,
            "options": options,
        }
        if retries is not None:  # a daemon of 0.2 would leave it out
            task["retries"] = retries
        if at is not None:
            task["due"] = new_task.due(at, delay)
        if expires is not None:
            task["expires"] = new_task.limit("expires", expires)
        if timeout is not None:
            task["timeout"] = new_task.limit("timeout", timeout)
        if others := new_task.after(after):
            task["after"] = others
        if child is not None:
            names = ("parent", "parent_attempt", "child", "detached")
            task |= dict(zip(names, child, strict=True))
        if if_failed is not None:
            task["if_failed"] = new_task.if_failed(if_failed)
        if if_exists is not None:
            task["if_exists"] = new_task.if_exists(if_exists)
        for what, limit in (("key_for", key_for), ("at_most", at_most)):
            if limit is not None:
                task[what] = new_task.limit(what, limit)
        made = field((yield request("submit", tasks=[task])), "tasks", list)
        if len(made) != 1 or not isinstance(made[0], dict):
            raise ProtocolError("an answer to submit that is not about one task")
        handle = self.handle(field(made[0], "id", int))
        handle.created = field(made[0], "created", bool)
        handle.replaced = made[0].get("replaced") is True
        return handle
