"""What a client can ask of the daemon about schedules; for ``Client`` and ``AsyncClient``."""

from __future__ import annotations

import os
import time
from typing import Any

from taskd.client.operations import Operation, Steps, request
from taskd.protocol import submission


class ScheduleOperations:
    """For operators."""

    @Operation
    def schedules(self) -> Steps[list[dict[str, Any]]]:
        """All of them, by name; those that a deploy has dropped too, for 30 days.

        Each: name, task, text (when it runs, in words), next, last_slot, last_task, last_state,
        running, paused, dropped, problem, skipped and why, and more; times in Unix seconds.
        """
        found = (yield request("schedules"))["schedules"]
        return list(found)

    @Operation
    def pause_schedule(self, name: str) -> Steps[dict[str, Any]]:
        """Run none of its slots until it is resumed; answers {was}: it was paused before."""
        return (yield request("pause_schedule", name=name))

    @Operation
    def resume_schedule(self, name: str, *, catch_up: str | None = None) -> Steps[dict[str, Any]]:
        """End its pause; answers {was}. ``catch_up="once"``: one run for what was missed."""
        return (yield request("resume_schedule", name=name, catch_up=catch_up))

    @Operation
    def run_schedule(self, name: str, *, force: bool = False) -> Steps[dict[str, Any]]:
        """A task of it now, beside its slots; answers {id, created}.

        Refused while an earlier one waits or runs, unless ``force`` (or ``overlap="run"``).
        """
        sent = submission.timed(time.time(), os.urandom(8))
        return (yield request("run_schedule", name=name, submission=sent, force=force or None))
