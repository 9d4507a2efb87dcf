"""What ``eager()`` checks of a submission, as the daemon does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from taskd import tasks
from taskd.errors import BadArguments, KeyConflict, ProtocolError
from taskd.model.arguments import mistyped
from taskd.model.binding import bind
from taskd.protocol import data

KNOWN = frozenset(
    (
        "submission",
        "submission_kind",
        "name",
        "args",
        "key",
        "if_exists",
        "queue",
        "priority",
        "retries",
        "expires",
        "timeout",
        "after",
        "after_new",
        "if_failed",
        "parent",
        "parent_attempt",
        "child",
        "detached",
    )
)
"""What of a submission has a meaning here. (A task starts at once, before it could expire.)"""


def check_arguments(task: tasks.Task[..., Any], raw: bytes) -> None:
    """As the daemon does, from what the manifest would say."""
    try:
        args = data.decode(raw)
    except ProtocolError as error:
        raise BadArguments(f"the arguments are not plain data: {error}") from None
    entry = task.entry()
    if (why := bind(entry, args) or mistyped(entry["types"], args)) is not None:
        raise BadArguments(f"{task.name}: {why}")


def check_same(taken: Any, new: Mapping[str, Any]) -> None:
    if (taken.task.name, taken.args) != (new["name"], new["args"]):
        what = "other arguments" if taken.task.name == new["name"] else "another name"
        raise KeyConflict(
            f'the key "{taken.key}" is that of task {taken.id} ({taken.task.name}, '
            f"{taken.state.value}), which has {what}"
        )
