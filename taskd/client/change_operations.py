"""What a client can change of tasks, one by one and many at once; for both clients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from taskd.client import new_task
from taskd.client.operations import Operation, Steps, request
from taskd.client.records import task_info
from taskd.errors import Refused

if TYPE_CHECKING:
    from datetime import datetime


class ChangeOperations:
    """All but ``checkpoint`` may be sent again after a lost connection."""

    @Operation
    def cancel(self, task: int) -> Steps[dict[str, Any]]:
        """Cancel a task; answers {state, was}. One that has ended stays as it is."""
        return (yield request("cancel", task=task))

    @Operation
    def retry(
        self, task: int, *, from_start: bool = False, step: str | None = None
    ) -> Steps[dict[str, Any]]:
        """Queue a held, failed or cancelled task again, with its saved state; answers {state}.

        ``from_start``: without it. ``step``: without what that step, or loop, and all after it have
        saved; ``ctx.state`` stays.
        """
        asked = request("retry", task=task, from_start=from_start or None, step=step)
        try:
            return (yield asked)
        except Refused:
            if asked.sent < 2:
                raise
        # It was sent again over a new connection, and refused: perhaps the first one was done.
        info = task_info((yield request("show", task=task)).get("task"))
        if info.state not in ("queued", "scheduled", "running"):
            raise Refused(f"task {info.id} was not queued again: it is {info.state}")
        return {"state": info.state}

    @Operation
    def cancel_all(self, tasks: Sequence[int], *, only: str | None = None) -> Steps[dict[str, Any]]:
        """Cancel these tasks (at most 100); answers {done: [id…], passed: [id…], refused:
        [{task, why}…]}. ``only``: those that are in this state still; the others are passed."""
        return (yield request("change", tasks=list(tasks), do="cancel", only=only))

    @Operation
    def retry_all(
        self,
        tasks: Sequence[int],
        *,
        only: str | None = None,
        from_start: bool = False,
        step: str | None = None,
    ) -> Steps[dict[str, Any]]:
        """``retry`` for these tasks (at most 100); answers as ``cancel_all``."""
        how = {"from_start": from_start or None, "step": step}
        return (yield request("change", tasks=list(tasks), do="retry", only=only, **how))

    @Operation
    def change(
        self,
        tasks: Sequence[int],
        *,
        only: str | None = None,
        queue: str | None = None,
        priority: int | None = None,
        delay: float | None = None,
        at: datetime | None = None,
    ) -> Steps[dict[str, Any]]:
        """Move these tasks (at most 100), which wait, to a queue, another priority or time; answers
        as ``cancel_all``. ``delay``: seconds from now (0: now)."""
        due = None if at is None else new_task.due(at, delay)
        how = {"queue": queue, "priority": priority, "delay": delay, "due": due}
        return (yield request("change", tasks=list(tasks), do="alter", only=only, **how))

    @Operation
    def set_concurrency(
        self,
        queue: str,
        tasks: int | None,
        *,
        seconds: float | None = None,
        why: str | None = None,
    ) -> Steps[dict[str, Any]]:
        """Have so many tasks of a queue run at once, for ``seconds`` or until it is set anew; None:
        as taskd.toml says. Answers {was}: it was set before. For operators."""
        how = {"concurrency": tasks, "seconds": seconds, "why": why}
        return (yield request("set_concurrency", queue=queue, **how))

    @Operation
    def checkpoint(self, task: int) -> Steps[dict[str, Any]]:
        """Ask a running task to leave at its next safe point; it goes on from there, on the current
        revision; answers {asked}."""
        return (yield request("checkpoint", task=task))
