"""An attempt in motion, as the master holds it in memory: from its claim to its recorded end."""

from __future__ import annotations

from typing import Any


class Running:
    """``attempt`` is 0 until the claim is committed. ``progress`` is the latest only.

    ``asked``: None, "leave" or "cancel", as we last told the worker; ``why`` goes with it.
    ``waiting``: why it cannot save just now, or None.
    """

    __slots__ = (
        "asked",
        "attempt",
        "name",
        "on_deploy",
        "owner",
        "progress",
        "queue",
        "task",
        "waiting",
        "why",
    )

    def __init__(self, task: int, queue: str, name: str, owner: int, on_deploy: str) -> None:
        self.task = task
        self.queue = queue
        self.name = name
        self.owner = owner
        self.on_deploy = on_deploy
        self.attempt = 0
        self.progress: dict[str, Any] | None = None
        self.asked: str | None = None
        self.why: str | None = None
        self.waiting: str | None = None
