"""``taskd.batch``: tasks that are submitted together, and what is to follow them.

batch = taskd.batch([load.call(part=p) for p in parts], then=publish.call(day="2026-11-22"))
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from taskd.client.blocking import TaskHandle
    from taskd.client.submit_operations import Batch
    from taskd.protocol.submission import Call


def batch(
    calls: Iterable[Call], *, then: Call | None = None, on_end: Call | None = None
) -> Batch[TaskHandle]:
    """Submit them in one transaction, all or none; see ``Client.batch``."""
    from taskd.client import default

    return default.client().batch(calls, then=then, on_end=on_end)
