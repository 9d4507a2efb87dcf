"""What the daemon tells about tasks, as Python values; used by both clients and the CLI."""

from __future__ import annotations

from typing import Any

from taskd.errors import ProtocolError, TaskCancelled, TaskFailed, TaskHeld
from taskd.protocol import data
from taskd.record import Record

Event = dict[str, Any]
"""One item of ``follow``: a numbered state change {event, token, task, at, state, attempt,
revision, reason}, or {progress: {task, done, total, note}}. ``at`` is Unix seconds."""


class AttemptInfo(Record):
    """One attempt of a task; times are Unix seconds.

    What is told of its end is None while it runs. ``how`` it ended: "succeeded", "failed",
    "put off", "sleeping", "interrupted", "crashed", "cancelled" and the like. ``error``: its own,
    cut. ``delay``: how many seconds after ``ended`` the next one was to begin, if it was to wait.
    """

    attempt: int
    started: float | None
    ended: float | None
    revision: str | None
    worker: str | None
    pid: int | None
    how: str | None
    reason: str | None
    error: dict[str, Any] | None
    delay: float | None


class TaskInfo(Record):
    """A task as it was when the daemon answered; times are Unix seconds.

    ``state`` is the stored one (``model.task.State`` lists them), ``shown`` tells ``retrying``
    and ``resuming`` apart. ``reason`` is a sentence where there is one to say. ``progress`` is
    {done, total, note} and ``error`` {type, message, traceback}. ``ran``: the seconds that its
    attempts ran, None before the first. ``expires``: when it is cancelled if it has not started by
    then. ``arguments``: in words, cut, without secrets. ``pid``, ``memory`` (bytes, of the process
    that runs it), ``log`` (a path) and ``retries`` ({used, allowed, waits, by_function}, if it may
    be tried again) are told of single tasks. ``after``: [{task, state}…], at most ten of the tasks
    that it comes after, those first that it
    still waits for; ``waits_for``: how many these are; ``if_failed``: what it does if one does not
    succeed. ``parent``: the task that submitted it. Lists come without results.
    """

    id: int
    name: str
    queue: str
    state: str
    shown: str
    reason: str | None
    attempt: int
    revision: str | None
    progress: dict[str, Any] | None
    encoded_result: bytes | None
    error: dict[str, Any] | None
    submitted: float | None
    started: float | None
    ended: float | None
    owner: int | None
    priority: int
    key: str | None
    run_at: float | None
    ran: float | None
    expires: float | None
    arguments: str | None = None
    pid: int | None = None
    memory: int | None = None
    log: str | None = None
    retries: dict[str, Any] | None = None
    after: list[dict[str, Any]] | None = None
    waits_for: int | None = None
    if_failed: str | None = None
    parent: int | None = None
    silent: float | None = None
    timeout: dict[str, Any] | None = None

    @property
    def result(self) -> Any:
        """What the task returned; None unless it succeeded. Raises ProtocolError if damaged."""
        return None if self.encoded_result is None else data.decode(self.encoded_result)

    def outcome(self) -> Any:
        """The result, or what became of the task as an error.

        Raises TaskFailed (with the task's traceback as a note), TaskHeld or TaskCancelled;
        ValueError for a task that is not settled.
        """
        title = f"task {self.id} ({self.name})"
        if self.state == "succeeded":
            return self.result
        if self.state == "failed":
            error = self.error or {}
            parts = [str(error[part]) for part in ("type", "message") if error.get(part)]
            why = ": ".join(parts) or self.reason
            failure = TaskFailed(f"{title} failed: {why}" if why else f"{title} failed")
            if error.get("traceback"):
                failure.add_note(f"In the task:\n{error['traceback']}")
            raise failure
        if self.state == "held":
            raise TaskHeld(f"{title} is held: {self.reason or 'no reason was given'}")
        if self.state == "cancelled":
            why = f": {self.reason}" if self.reason else ""
            raise TaskCancelled(f"{title} was cancelled{why}")
        raise ValueError(f"{title} is {self.state}")


def task_info(task: Any) -> TaskInfo:
    """A TASK of the protocol. Raises ProtocolError if it lacks what every task has."""
    if not isinstance(task, dict):
        raise ProtocolError("a task that is not a map")
    for name, kind in (("id", int), ("name", str), ("state", str)):
        if type(task.get(name)) is not kind:
            raise ProtocolError(f"a task whose {name} is missing or not {kind.__name__}")
    fields = {name: task.get(name) for name in TaskInfo._fields} | {
        "encoded_result": task.get("result"),
        "shown": task.get("shown") or task["state"],
        "queue": task.get("queue") or "default",
        "attempt": task.get("attempt") or 0,
        "priority": task.get("priority") or 0,
    }
    return TaskInfo(**fields)  # type: ignore[arg-type]


def attempt_info(attempt: Any) -> AttemptInfo:
    """An ATTEMPT of the protocol. Raises ProtocolError if it is none."""
    if not isinstance(attempt, dict) or type(attempt.get("attempt")) is not int:
        raise ProtocolError("an attempt that is not a map with its number")
    return AttemptInfo._make(attempt.get(name) for name in AttemptInfo._fields)
