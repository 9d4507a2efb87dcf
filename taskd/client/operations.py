"""What a client can ask of the daemon: each operation once, for ``Client`` and ``AsyncClient``.

An operation is a generator, without input or output: it yields each request (``Asked``) and is
sent the ``ok`` of its reply, or has its refusal raised in it; what it returns is what the caller
gets. Both clients inherit the operations and differ in how ``_run`` carries them out. What the
caller gave is checked before anything is sent, and raises Refused (or a kind of it).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Coroutine, Generator, Iterable, Iterator, Sequence
from functools import wraps
from types import MethodType
from typing import (
    Any,
    Concatenate,
    Generic,
    Literal,
    ParamSpec,
    Protocol,
    TypeVar,
    overload,
)

from taskd.client.records import AttemptInfo, Event, TaskInfo, attempt_info, task_info
from taskd.client.session import Asked, Reached, still_running
from taskd.errors import ProtocolError, Refused
from taskd.model.task import SETTLED
from taskd.protocol.operations import MAX_LISTED, MAX_WATCHED, check

P = ParamSpec("P")
T = TypeVar("T")
H = TypeVar("H", bound="Handle")

Steps = Generator[Asked, dict[str, Any], T]

_SETTLED = frozenset(state.value for state in SETTLED)


class _Blocking(Protocol):
    _is_async: Literal[False]


class _Async(Protocol):
    _is_async: Literal[True]


class Operation(Generic[P, T]):
    """Makes a method of both clients out of an operation: a function, or one to ``await``."""

    def __init__(self, steps: Callable[Concatenate[Any, P], Steps[T]]) -> None:
        result = steps.__annotations__["return"]
        steps.__annotations__["return"] = result.removeprefix("Steps[").removesuffix("]")

        @wraps(steps)
        def run(client: Any, *args: P.args, **named: P.kwargs) -> Any:
            return client._run(steps(client, *args, **named))

        @wraps(steps)
        async def run_async(client: Any, *args: P.args, **named: P.kwargs) -> Any:
            return await client._run(steps(client, *args, **named))

        self._run, self._run_async = run, run_async

    @overload
    def __get__(self, client: None, kind: Any) -> Callable[..., Any]: ...
    @overload
    def __get__(self, client: _Blocking, kind: Any) -> Callable[P, T]: ...
    @overload
    def __get__(self, client: _Async, kind: Any) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __get__(self, client: Any, kind: Any) -> Any:
        method = self._run_async if getattr(kind, "_is_async", False) else self._run
        return method if client is None else MethodType(method, client)


class Handle:
    """A task by its ``id``: what the handles of both clients share.

    ``created``: whether the submission made the task; False: its key found one that was there, to
    which it has given its arguments if it is ``replaced``. None: it is not from a submission.
    """

    __slots__ = ("_client", "created", "id", "replaced")

    def __init__(self, client: Any, id: int) -> None:
        self._client = client
        self.id = id
        self.created: bool | None = None
        self.replaced = False

    def __repr__(self) -> str:
        return f"<task {self.id}>"


class Operations(Generic[H]):
    """The operations that are no stream. ``_handle``: the class of this client's handles."""

    _handle: type[H]
    _reached: Reached

    @property
    def connections_lost(self) -> int:
        """How many connections the daemon's end cut off while they were wanted."""
        return self._reached.lost

    def handle(self, task: int) -> H:
        """A handle on a task by its id; asks nothing."""
        return self._handle(self, task)

    @Operation
    def task(self, task: int) -> Steps[TaskInfo]:
        """How the task is now. Raises UnknownTask."""
        return task_info((yield request("show", task=task)).get("task"))

    @Operation
    def why(self, task: int) -> Steps[dict[str, Any]]:
        """What it waits for: {id, state, kind (a word), text (a sentence), do, limit}.

        ``limit``: of a task that a limit keeps, its numbers and who holds it, else None.
        Raises UnknownTask, and Refused if the daemon is of taskd 0.2.
        """
        return (yield request("why", task=task))

    @Operation
    def attempts(self, task: int) -> Steps[list[AttemptInfo]]:
        """The task's attempts in order: the first 5, the last 50, and the one that runs.

        Raises UnknownTask, and Refused if the daemon is of taskd 0.2.
        """
        found = field((yield request("attempts", task=task)), "attempts", list)
        return [attempt_info(each) for each in found]

    @Operation
    def tasks(
        self,
        *,
        state: str | None = None,
        queue: str | None = None,
        name: str | None = None,
        owner: int | None = None,
        key: str | None = None,
        revision: str | None = None,
        since: float | None = None,
        until: float | None = None,
        text: str | None = None,
        limit: int = 100,
        before: int | None = None,
        results: bool = False,
    ) -> Steps[list[TaskInfo]]:
        """At most ``limit`` tasks, newest first, with ids below ``before``.

        ``since``, ``until``: submitted then, Unix seconds. ``text`` stands in the error, the reason
        or the arguments, where these are not long. Their results are left out, unless ``results``
        asks for them: they may be large.
        """
        narrow = {
            "state": state,
            "queue": queue,
            "name": name,
            "results": results or None,
            "owner": owner,
            "key": key,
            "revision": revision,
            "text": text,
            "since": since,
            "until": until,
        }
        found: list[TaskInfo] = []
        while len(found) < limit:
            ok = yield request(
                "list", limit=min(limit - len(found), MAX_LISTED), before=before, **narrow
            )
            page = [task_info(task) for task in field(ok, "tasks", list)]
            if not page:
                break
            found += page
            before = page[-1].id
        return found

    @Operation
    def status(self) -> Steps[dict[str, Any]]:
        """How it is: pid, revision, release, confirmed, link, symlink, states, queues and more.

        ``link`` is the path that the configuration names, ``symlink`` what it points to;
        ``stopping``: whether a stop is under way; ``taskd``: its version; ``note``: what happened
        last.
        """
        return (yield request("status"))

    @Operation
    def revisions(self) -> Steps[list[dict[str, Any]]]:
        """The live ones. Each: revision, path, hash, state, workers, running, waiting and more.

        ``age`` in seconds, ``memory`` in bytes or None; ``holds``: at most ten of the tasks that
        keep it alive, each {task, name}.
        """
        return field((yield request("revisions")), "revisions", list)

    @Operation
    def rejected(self) -> Steps[list[dict[str, Any]]]:
        """The releases that were refused of late, the latest last: revision, path, reason, at."""
        return field((yield request("revisions")), "rejected", list)

    @Operation
    def reload(
        self, release: str | None = None, *, plan: bool = False, allow_held: bool = False
    ) -> Steps[dict[str, Any]]:
        """Deploy ``release`` (default: what the configuration names) and wait for the verdict.

        Answers {revision, previous, pause, plan, hook}, the pause in seconds; ``hook`` is what
        the command ``[hooks] before`` wrote; ``plan`` tells what becomes of the tasks: {target,
        running: [{task, name, revision, verdict, why}…], waiting: [{name, version, shape,
        count, verdict, why}…], warnings}, a verdict being "finishes", "moves", "continues" or
        "held". With ``plan`` nothing is changed, and {plan} alone is the answer. A deploy that
        would hold a task is refused, unless ``allow_held``.

        Raises DeployRefused with the reason, or Error if the connection is lost before the
        verdict: it is not asked for twice. One that is left before (by Ctrl-C, say) is given up.
        """
        allowed = allow_held or None
        return (yield request("reload", release=release, plan=plan or None, allow_held=allowed))

    @Operation
    def rollback(self, *, plan: bool = False, allow_held: bool = False) -> Steps[dict[str, Any]]:
        """Deploy the release that was confirmed before this one; all else as ``reload``."""
        return (yield request("rollback", plan=plan or None, allow_held=allow_held or None))

    @Operation
    def drain(self, revision: str, how: str = "finish") -> Steps[dict[str, Any]]:
        """Make a draining revision empty sooner; answers {running, asked}.

        ``how``: "finish" asks nothing of its tasks, "checkpoint" has them leave at their next
        safe point, "now" ends them; they continue on another revision from what is saved.
        """
        return (yield request("drain", revision=revision, how=how))

    @Operation
    def shutdown(self, *, plan: bool = False, keep: bool | None = None) -> Steps[dict[str, Any]]:
        """Stop the daemon and wait until its tasks have left; answers {asked, ended, kept}.

        ``keep``: tasks that do not leave in time go on, for the next daemon; False: they are
        ended, and continue from what is saved; None: as at a SIGTERM. With ``plan`` nothing is
        done, and the answer says what would be interrupted: {tasks: [{task, name, revision,
        started, saved}…], limit}.

        Raises Error if the connection is lost before the end: it is not asked for twice.
        """
        return (yield request("shutdown", plan=plan or None, keep=keep))

    @Operation
    def pause(
        self,
        *,
        queue: str | None = None,
        task: str | None = None,
        seconds: float | None = None,
        why: str | None = None,
    ) -> Steps[dict[str, Any]]:
        """Start nothing fresh of a queue, of a task's name, or (neither) at all; answers {was}.

        ``seconds``: for so long, else until ``resume``. ``was``: it was paused before.
        """
        return (yield request("pause", queue=queue, task=task, seconds=seconds, why=why))

    @Operation
    def resume(self, *, queue: str | None = None, task: str | None = None) -> Steps[dict[str, Any]]:
        """End the pause of a queue, of a task's name, or (neither) of everything; answers {was}."""
        return (yield request("resume", queue=queue, task=task))

    @Operation
    def remove(self, tasks: Sequence[int]) -> Steps[dict[str, Any]]:
        """Remove those of these tasks (at most 100) that are over; answers {removed: [id…]}."""
        return (yield request("remove", tasks=list(tasks)))

    @Operation
    def compact(self) -> Steps[dict[str, Any]]:
        """Have the store's file written anew, as small as it can be; submissions wait meanwhile.
        Answers its size in bytes: {before, now}."""
        return (yield request("compact"))

    @Operation
    def log(self, task: int, offset: int = 0, limit: int | None = None) -> Steps[dict[str, Any]]:
        """A part of its output: {data, offset, size, ended}; ``offset`` is where it ends.

        Continue there: where a log that grew too long has lost its middle, the data comes from
        behind it.
        """
        return (yield request("log", task=task, offset=offset, limit=limit, skips=True))


def request(op: str, **fields: Any) -> Asked:
    """Raises Refused for fields that the protocol does not allow."""
    try:
        return Asked(op, check(op, fields))
    except ProtocolError as error:
        raise Refused(str(error)) from None


def waits(tasks: Sequence[int], for_ever: bool) -> Iterator[Asked]:
    """The ``wait`` streams for these tasks.

    ``for_ever``: the calling thread waits without a limit; in a task's main thread the daemon is
    told, which knows whether that could end.
    """
    scratch = os.environ.get("TASKD_SCRATCH")
    asks = for_ever and scratch and threading.current_thread() is threading.main_thread()
    for start in range(0, len(tasks), MAX_WATCHED):
        some = list(dict.fromkeys(tasks[start : start + MAX_WATCHED]))
        yield request("wait", tasks=some, within=scratch if asks else None)


def follow(tasks: Iterable[int], after: int | Event, progress: bool) -> Asked:
    """A ``follow`` stream. Raises ValueError for an ``after`` that is progress."""
    number, token = after, None
    if isinstance(after, dict):
        if "event" not in after:
            raise ValueError("after: only a numbered event says where to go on, progress does not")
        number, token = after["event"], after.get("token")
    ids = list(dict.fromkeys(tasks))
    return request("follow", tasks=ids, after=number, token=token, progress=progress)


def settled(tasks: Sequence[TaskInfo]) -> list[TaskInfo]:
    """``tasks``, if all are settled. Raises TimeoutError naming those that are not."""
    running = [task.id for task in tasks if task.state not in _SETTLED]
    if running:
        raise still_running(running)
    return list(tasks)


def field(ok: dict[str, Any], name: str, kind: type[T]) -> T:
    value = ok.get(name)
    if not isinstance(value, kind):
        raise ProtocolError(f"an answer whose {name} is missing or not a {kind.__name__}")
    return value
