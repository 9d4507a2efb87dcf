"""What the daemon tells about a task, and its end as a result or an error."""

from __future__ import annotations

from typing import Any

import pytest

from taskd.client.records import task_info
from taskd.errors import ProtocolError, TaskCancelled, TaskFailed, TaskHeld
from taskd.protocol import data


def told(state: str, **fields: Any) -> Any:
    return task_info({"id": 17, "name": "imports", "state": state, **fields})


def test_a_task_that_succeeded_gives_its_result_with_its_types() -> None:
    assert told("succeeded", result=data.encode((1, {2}))).outcome() == (1, {2})


def test_a_task_that_returned_none_gives_none() -> None:
    assert told("succeeded", result=data.encode(None)).outcome() is None


def test_a_task_that_failed_raises_with_its_traceback_as_a_note() -> None:
    error = {"type": "ValueError", "message": "bad row", "traceback": "Traceback: line 3"}
    with pytest.raises(TaskFailed) as caught:
        told("failed", error=error).outcome()
    assert str(caught.value) == "task 17 (imports) failed: ValueError: bad row"
    assert caught.value.__notes__ == ["In the task:\nTraceback: line 3"]


def test_a_task_that_is_held_raises_with_its_reason() -> None:
    with pytest.raises(TaskHeld, match=r"task 17 \(imports\) is held: no such name"):
        told("held", reason="no such name").outcome()


def test_a_task_that_was_cancelled_raises() -> None:
    with pytest.raises(TaskCancelled, match=r"task 17 \(imports\) was cancelled"):
        told("cancelled").outcome()


def test_a_task_that_is_not_settled_has_no_outcome() -> None:
    with pytest.raises(ValueError, match="is running"):
        told("running").outcome()


def test_a_damaged_result_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError):
        told("succeeded", result=b"\xff").outcome()


@pytest.mark.parametrize(
    "task",
    [
        None,
        [],
        {},
        {"id": "17", "name": "a", "state": "held"},
        {"id": 1, "name": None, "state": "x"},
    ],
)
def test_what_is_no_task_is_a_protocol_error(task: Any) -> None:
    with pytest.raises(ProtocolError, match="a task"):
        task_info(task)
