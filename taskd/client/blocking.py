"""``Client``: the daemon, for ordinary (blocking) Python.

One connection for requests, shared by all threads under a lock; one more for each stream
(``follow``, ``wait``) and each deploy while it lasts, so that none of them holds up the others.
A lost connection is made again (see ``session``); after a fork the child makes its own.

A call within a call of the same thread (of a signal handler, of a destructor or weakref callback
that the collector runs) has a connection of its own: the one that is in use is in the middle of
something. Those connections are kept, one for each depth, so that such a call costs no more than
another: a handler that takes longer than its timer's interval is called within itself, ever deeper.
Calls deeper than MAX_DEPTH are refused at once.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from threading import RLock
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from taskd.client import asks
from taskd.client.link import Link
from taskd.client.records import task_info
from taskd.client.session import PATIENCE, Asked, Patience, Reached, kept_waiting, too_deep
from taskd.errors import Refused
from taskd.protocol.operations import MAX_WATCHED

if TYPE_CHECKING:
    from taskd.client.records import Event, TaskInfo

T = TypeVar("T")
R = TypeVar("R")

MAX_DEPTH = 3
"""How many calls of one thread may be within one another: a call, a handler's, and that of another
handler or a destructor within it. Each level more makes a flooded outermost call several times as
long."""


class Client:
    """A client of the daemon; usable from several threads and after a fork.

    ``socket``: a socket or a directory of them (default: $TASKD_SOCKET, else the user's own
    daemon, else the system's). ``timeout``: seconds after which a daemon that went away, or does
    not answer, is given up with NoDaemon; one that was never there is reported at once. Waiting
    for a task to end has its own ``timeout`` and by default none.

    Every method raises NoDaemon, or Refused (or a kind of it) saying why.
    """

    def __init__(self, socket: str | None = None, timeout: float = PATIENCE) -> None:
        self._socket = socket
        self._timeout = timeout
        self._reached = Reached()
        self._lock = RLock()
        self._depth = 0  # how many links the thread that holds the lock is in the middle of
        self._pid = os.getpid()
        self._links = [self._new_link()]

    def submit(
        self,
        name: str,
        args: dict[str, Any] | None = None,
        *,
        key: str | None = None,
        priority: int = 0,
        queue: str | None = None,
        delay: float | None = None,
        options: dict[str, Any] | None = None,
    ) -> TaskHandle:
        """Queue a task; once this returns, it is on disk.

        ``args``: plain data by name, at most 1 MiB. ``key``: while a task of yours with that key
        lives, it is returned instead. ``priority``: higher goes first. ``delay``: seconds before
        it may start. ``options``: for the built-in ``command`` task, {"on_deploy": "checkpoint"}.
        Raises UnknownTask, BadArguments, NotPlainData, KeyConflict.
        """
        ask = asks.submit(
            name,
            {} if args is None else args,
            key=key,
            priority=priority,
            queue=queue,
            delay=delay,
            options=options,
        )
        return TaskHandle(self, self._do(ask))

    def handle(self, task: int) -> TaskHandle:
        """A handle on a task by its id; asks nothing."""
        return TaskHandle(self, task)

    def task(self, task: int) -> TaskInfo:
        """How the task is now. Raises UnknownTask."""
        return self._do(asks.show(task))

    def tasks(
        self,
        *,
        state: str | None = None,
        queue: str | None = None,
        name: str | None = None,
        limit: int = 100,
        before: int | None = None,
        results: bool = False,
    ) -> list[TaskInfo]:
        """At most ``limit`` tasks, newest first, with ids below ``before``.

        Their results are left out, unless ``results`` asks for them: they may be large.
        """
        narrow = {"state": state, "queue": queue, "name": name, "results": results or None}
        found: list[TaskInfo] = []
        while len(found) < limit:
            ask = asks.listing(limit - len(found), before=before, **narrow)
            page = self._do(ask)
            if not page:
                break
            found += page
            before = page[-1].id
        return found

    def status(self) -> dict[str, Any]:
        """How it is: pid, revision, release, confirmed, link, symlink, states, queues and more.

        ``link`` is the path that the configuration names, ``symlink`` what it points to;
        ``stopping``: whether a stop is under way; ``taskd``: its version; ``note``: what happened
        last.
        """
        return self._do(asks.status())

    def revisions(self) -> list[dict[str, Any]]:
        """The live ones. Each: revision, path, hash, state, workers, running, waiting and more.

        ``age`` in seconds, ``memory`` in bytes or None; ``holds``: at most ten of the tasks that
        keep it alive, each {task, name}.
        """
        return self._do(asks.revisions())

    def rejected(self) -> list[dict[str, Any]]:
        """The releases that were refused of late, the latest last: revision, path, reason, at."""
        return self._do(asks.rejected())

    def reload(
        self, release: str | None = None, *, plan: bool = False, allow_held: bool = False
    ) -> dict[str, Any]:
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
        return self._deploy(asks.reload(release, plan, allow_held))

    def rollback(self, *, plan: bool = False, allow_held: bool = False) -> dict[str, Any]:
        """Deploy the release that was confirmed before this one; all else as ``reload``."""
        return self._deploy(asks.rollback(plan, allow_held))

    def drain(self, revision: str, how: str = "finish") -> dict[str, Any]:
        """Make a draining revision empty sooner; answers {running, asked}.

        ``how``: "finish" asks nothing of its tasks, "checkpoint" has them leave at their next
        safe point, "now" ends them; they continue on another revision from what is saved.
        """
        return self._do(asks.drain(revision, how))

    def shutdown(self, *, plan: bool = False, keep: bool | None = None) -> dict[str, Any]:
        """Stop the daemon and wait until its tasks have left; answers {asked, ended, kept}.

        ``keep``: tasks that do not leave in time go on, for the next daemon; False: they are
        ended, and continue from what is saved; None: as at a SIGTERM. With ``plan`` nothing is
        done, and the answer says what would be interrupted: {tasks: [{task, name, revision,
        started, saved}…], limit}.

        Raises Error if the connection is lost before the end: it is not asked for twice.
        """
        return self._deploy(asks.shutdown(plan, keep))

    def cancel(self, task: int) -> dict[str, Any]:
        """Cancel a task; answers {state, was}. One that has ended stays as it is."""
        return self._do(asks.cancel(task))

    def retry(self, task: int) -> dict[str, Any]:
        """Queue a held, failed or cancelled task again, with its saved state; answers {state}."""
        return self._do(asks.retry(task))

    def log(self, task: int, offset: int = 0, limit: int | None = None) -> dict[str, Any]:
        """A part of its output: {data, offset, size, ended}; ``offset`` is where it ends.

        Continue there: where a log that grew too long has lost its middle, the data comes from
        behind it.
        """
        return self._do(asks.log(task, offset, limit))

    def wait(self, tasks: Iterable[int], timeout: float | None = None) -> list[TaskInfo]:
        """Wait until all are settled (ended or held); how each ended, in the order given.

        Raises TimeoutError after ``timeout`` seconds; the tasks go on. Without a timeout, in a
        task: Refused if it would wait for ever, since all places of its queue are taken by tasks
        that wait for others there.
        """
        ids = list(tasks)
        if timeout is not None and timeout <= 0:  # one look
            return asks.settled([self.task(task) for task in ids])
        deadline = None if timeout is None else time.monotonic() + timeout
        settled: dict[int, TaskInfo] = {}
        for start in range(0, len(ids), MAX_WATCHED):
            fields = asks.wait(ids[start : start + MAX_WATCHED], for_ever=timeout is None)
            for item in self._stream("wait", fields, deadline):
                info = task_info(item["task"])
                settled[info.id] = info
        return [settled[task] for task in ids]

    def follow(
        self, tasks: Iterable[int], after: int = 0, progress: bool = False
    ) -> Iterator[Event]:
        """The tasks' events after number ``after``, as they come, until all are settled.

        Each event once and in order, over lost connections and deploys; with ``progress`` also
        {progress: {task, done, total, note}}, of which only the latest matters.
        """
        return self._stream("follow", asks.follow(tasks, after, progress), None)

    @property
    def connections_lost(self) -> int:
        """How many connections the daemon's end cut off while they were wanted."""
        return self._reached.lost

    def close(self) -> None:
        """Close the connections; a later request makes a new one. Those in use by calls that this
        is called within stay open."""
        self._alone(self._close_from)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _do(self, ask: asks.Ask[T]) -> T:
        asked = Asked(ask.op, ask.fields)
        try:
            ok = self._alone(lambda link: link.run(asked, self._timeout))
        except Refused:
            if asked.sent < 2 or ask.recheck is None:
                raise
            return self._do(ask.recheck)
        return ask.read(ok)

    def _deploy(self, ask: asks.Ask[T]) -> T:
        with self._new_link() as link:
            return ask.read(link.run(Asked(ask.op, ask.fields), None))

    def _stream(
        self, op: str, fields: dict[str, Any], deadline: float | None
    ) -> Iterator[dict[str, Any]]:
        if not fields["tasks"]:
            return
        with self._new_link() as link:
            yield from link.stream(Asked(op, fields), deadline)

    def _alone(self, use: Callable[[Link], R]) -> R:
        """Use the link, or within a call of this thread the one of that depth. Raises NoDaemon if
        other threads have it for all of the timeout, Refused if it is too deep.

        An exception may strike wherever a call returns: also behind ``acquire``, so that whether
        the lock is ours only its ``release`` knows.
        """
        lock = self._its_lock()
        try:
            if not lock.acquire(timeout=self._timeout):
                raise kept_waiting(self._timeout)
            depth = self._depth
            link = self._link_at(depth)
            self._depth = depth + 1
            try:
                return use(link)
            finally:
                self._depth = depth
        finally:
            try:  # noqa: SIM105  # nothing may be called before the release
                lock.release()
            except RuntimeError:
                pass

    def _link_at(self, depth: int) -> Link:
        """A call within this one that has just the same need leaves a link too many, no more."""
        if depth >= MAX_DEPTH:
            raise too_deep(depth)
        while len(self._links) <= depth:
            self._links.append(self._new_link())
        return self._links[depth]

    def _close_from(self, first: Link) -> None:
        for link in self._links[self._links.index(first) :]:
            link.close()

    def _its_lock(self) -> RLock:
        """The lock; after a fork one of our own, since another thread may have held it."""
        if self._pid != os.getpid():
            self._lock = RLock()
            self._depth = 0
            self._pid = os.getpid()
        return self._lock

    def _new_link(self) -> Link:
        return Link(self._socket, Patience(self._timeout, self._reached))


class TaskHandle:
    """A task by its ``id``."""

    __slots__ = ("_client", "id")

    def __init__(self, client: Client, id: int) -> None:
        self._client = client
        self.id = id

    def __repr__(self) -> str:
        return f"<task {self.id}>"

    def status(self) -> TaskInfo:
        """How it is now."""
        return self._client.task(self.id)

    def wait(self, timeout: float | None = None) -> TaskInfo:
        """Wait until it is settled (ended or held). Raises TimeoutError after ``timeout`` s."""
        return self._client.wait([self.id], timeout)[0]

    def result(self, timeout: float | None = None) -> Any:
        """What it returned, once it has ended.

        Raises TaskFailed, TaskHeld or TaskCancelled; TimeoutError after ``timeout`` seconds.
        """
        return self.wait(timeout).outcome()

    def follow(self, after: int = 0, progress: bool = False) -> Iterator[Event]:
        """Its events after number ``after`` until it is settled (see ``Client.follow``)."""
        return self._client.follow([self.id], after, progress)

    def cancel(self) -> dict[str, Any]:
        """Cancel it; answers {state, was}."""
        return self._client.cancel(self.id)

    def retry(self) -> dict[str, Any]:
        """Queue it again if it is held, failed or cancelled; answers {state}."""
        return self._client.retry(self.id)
