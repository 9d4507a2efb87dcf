"""What can be asked of the daemon: each request and the reading of its answer, once.

Pure. ``Client`` and ``AsyncClient`` are two ways to send an ``Ask``. Building one checks what the
user gave: it raises Refused (or a kind of it) before anything is sent.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

from taskd.client.records import TaskInfo, task_info
from taskd.client.session import still_running
from taskd.errors import BadArguments, ProtocolError, Refused
from taskd.model.task import SETTLED
from taskd.protocol import data, secret
from taskd.protocol.operations import MAX_LISTED, check
from taskd.record import Record

T = TypeVar("T")

_SETTLED = frozenset(state.value for state in SETTLED)


class Ask(Record, Generic[T]):
    """One request. ``read`` makes the answer of its ``ok``.

    ``recheck`` is asked instead of believing a refusal that came after the request was sent a
    second time: the first one may have done it, and the second found it done.
    """

    op: str
    fields: dict[str, Any]
    read: Callable[[dict[str, Any]], T]
    recheck: Ask[T] | None = None


def submit(
    name: str,
    args: dict[str, Any],
    *,
    key: str | None = None,
    priority: int = 0,
    queue: str | None = None,
    delay: float | None = None,
    options: dict[str, Any] | None = None,
) -> Ask[int]:
    """A new task; answers its id. Sent twice, it is still one task, by its random id."""
    task: dict[str, Any] = {
        "submission": os.urandom(16),
        "name": name,
        "args": _arguments(args),
        "key": key,
        "priority": priority,
        "queue": queue,
        "delay": delay,
        "options": options,
    }
    secrets = secret.MARK in task["args"] and bool(secret.found_in(args))
    return _ask("submit", {"tasks": [task], "secrets": secrets or None}, _first_id)


def show(task: int) -> Ask[TaskInfo]:
    return _ask("show", {"task": task}, _task)


def listing(limit: int, **narrow: Any) -> Ask[list[TaskInfo]]:
    """One page of tasks, newest first: at most MAX_LISTED of them, perhaps fewer."""
    return _ask("list", {"limit": min(limit, MAX_LISTED), **narrow}, _tasks)


def status() -> Ask[dict[str, Any]]:
    return _ask("status", {}, _as_it_is)


def revisions() -> Ask[list[dict[str, Any]]]:
    return _ask("revisions", {}, lambda ok: _field(ok, "revisions", list))


def rejected() -> Ask[list[dict[str, Any]]]:
    return _ask("revisions", {}, lambda ok: _list_or_none(ok, "rejected"))


def reload(release: str | None, plan: bool, allow_held: bool) -> Ask[dict[str, Any]]:
    return _ask("reload", {"release": release, **_wishes(plan, allow_held)}, _as_it_is)


def rollback(plan: bool, allow_held: bool) -> Ask[dict[str, Any]]:
    return _ask("rollback", _wishes(plan, allow_held), _as_it_is)


def drain(revision: str, how: str) -> Ask[dict[str, Any]]:
    return _ask("drain", {"revision": revision, "how": how}, _as_it_is)


def shutdown(plan: bool, keep: bool | None) -> Ask[dict[str, Any]]:
    return _ask("shutdown", {"plan": plan or None, "keep": keep}, _as_it_is)


def cancel(task: int) -> Ask[dict[str, Any]]:
    return _ask("cancel", {"task": task}, _as_it_is)


def retry(task: int) -> Ask[dict[str, Any]]:
    again = _ask("show", {"task": task}, _queued_again)
    return _ask("retry", {"task": task}, _as_it_is)._replace(recheck=again)


def log(task: int, offset: int, limit: int | None) -> Ask[dict[str, Any]]:
    fields = {"task": task, "offset": offset, "limit": limit, "skips": True}
    return _ask("log", fields, lambda ok: _log_part(ok, offset))


def _log_part(ok: dict[str, Any], start: int) -> dict[str, Any]:
    """A daemon of 0.2 or before says where the data begins, not where it ends."""
    end = start + len(_field(ok, "data", bytes))
    return ok | {"offset": max(_field(ok, "offset", int), end)}


def wait(tasks: Iterable[int], for_ever: bool = False) -> dict[str, Any]:
    """The fields of a ``wait`` stream. ``for_ever``: the calling thread waits without a limit; in a
    task's main thread the daemon is told, which knows whether that could end."""
    fields: dict[str, Any] = {"tasks": list(dict.fromkeys(tasks))}
    scratch = os.environ.get("TASKD_SCRATCH")
    if for_ever and scratch and threading.current_thread() is threading.main_thread():
        fields["within"] = scratch
    return _checked("wait", fields)


def follow(tasks: Iterable[int], after: int, progress: bool) -> dict[str, Any]:
    """The fields of a ``follow`` stream."""
    fields = {"tasks": list(dict.fromkeys(tasks)), "after": after, "progress": progress}
    return _checked("follow", fields)


def settled(tasks: Sequence[TaskInfo]) -> list[TaskInfo]:
    """``tasks``, if all are settled. Raises TimeoutError naming those that are not."""
    running = [task.id for task in tasks if task.state not in _SETTLED]
    if running:
        raise still_running(running)
    return list(tasks)


def _ask(op: str, fields: dict[str, Any], read: Callable[[dict[str, Any]], T]) -> Ask[T]:
    return Ask(op, _checked(op, fields), read)


def _checked(op: str, fields: dict[str, Any]) -> dict[str, Any]:
    try:
        return check(op, fields)
    except ProtocolError as error:
        raise Refused(str(error)) from None


def _arguments(args: dict[str, Any]) -> bytes:
    if type(args) is not dict:
        raise BadArguments(
            f"args must be a dict of the task's arguments by their names, not {type(args).__name__}"
        )
    for name in args:
        if type(name) is not str:
            raise BadArguments(f"args: the name of an argument must be a str, not {name!r:.60}")
    try:
        return data.encode(args, "args", data.ARGUMENTS_LIMIT)
    except ImportError as error:  # of what only some values need
        raise Refused(
            f"args cannot be encoded any more ({error}): submit before the interpreter ends, from "
            "an exit handler (atexit) at the latest"
        ) from None


def _field(ok: dict[str, Any], name: str, kind: type[T]) -> T:
    value = ok.get(name)
    if not isinstance(value, kind):
        raise ProtocolError(f"an answer whose {name} is missing or not a {kind.__name__}")
    return value


def _list_or_none(ok: dict[str, Any], name: str) -> list[Any]:
    """A list that a daemon of an older version does not send is empty."""
    return _field(ok, name, list) if ok.get(name) is not None else []


def _wishes(plan: bool, allow_held: bool) -> dict[str, Any]:
    return {"plan": plan or None, "allow_held": allow_held or None}


def _as_it_is(ok: dict[str, Any]) -> dict[str, Any]:
    return ok


def _task(ok: dict[str, Any]) -> TaskInfo:
    return task_info(ok.get("task"))


def _tasks(ok: dict[str, Any]) -> list[TaskInfo]:
    return [task_info(task) for task in _field(ok, "tasks", list)]


def _first_id(ok: dict[str, Any]) -> int:
    tasks = _field(ok, "tasks", list)
    if len(tasks) != 1 or not isinstance(tasks[0], dict):
        raise ProtocolError("an answer to submit that is not about one task")
    return _field(tasks[0], "id", int)


def _queued_again(ok: dict[str, Any]) -> dict[str, Any]:
    task = _task(ok)
    if task.state not in ("queued", "scheduled", "running"):
        raise Refused(f"task {task.id} was not queued again: it is {task.state}")
    return {"state": task.state}
