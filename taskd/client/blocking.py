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
from contextlib import closing
from threading import RLock
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from taskd.client import operations, stand_in
from taskd.client.change_operations import ChangeOperations
from taskd.client.link import Link
from taskd.client.operations import Handle, Operations
from taskd.client.records import task_info
from taskd.client.schedule_operations import ScheduleOperations
from taskd.client.session import NOT_REPEATED, PATIENCE, Asked, Patience, Reached
from taskd.client.submit_operations import SubmitOperations
from taskd.errors import NoDaemon, Refused

if TYPE_CHECKING:
    from taskd.client.operations import Steps
    from taskd.client.records import AttemptInfo, Event, TaskInfo

T = TypeVar("T")

MAX_DEPTH = 3
"""How many calls of one thread may be within one another: a call, a handler's, and that of another
handler or a destructor within it. Each level more makes a flooded outermost call several times as
long."""


class TaskHandle(Handle):
    """A task by its ``id``."""

    __slots__ = ()
    _client: Client

    def status(self) -> TaskInfo:
        """How it is now."""
        return self._client.task(self.id)

    def attempts(self) -> list[AttemptInfo]:
        """Its attempts so far, in order (see ``Client.attempts``)."""
        return self._client.attempts(self.id)

    def wait(self, timeout: float | None = None) -> TaskInfo:
        """Wait until it is settled (ended or held). Raises TimeoutError after ``timeout`` s."""
        return self._client.wait([self.id], timeout)[0]

    def result(self, timeout: float | None = None) -> Any:
        """What it returned, once it has ended.

        Raises TaskFailed, TaskHeld or TaskCancelled; TimeoutError after ``timeout`` seconds.
        """
        return self.wait(timeout).outcome()

    def follow(self, after: int | Event = 0, progress: bool = False) -> Iterator[Event]:
        """Its events after ``after`` until it is settled (see ``Client.follow``)."""
        return self._client.follow([self.id], after, progress)

    def cancel(self) -> dict[str, Any]:
        """Cancel it; answers {state, was}."""
        return self._client.cancel(self.id)

    def retry(self) -> dict[str, Any]:
        """Queue it again if it is held, failed or cancelled; answers {state}."""
        return self._client.retry(self.id)


class Client(
    Operations[TaskHandle], SubmitOperations[TaskHandle], ChangeOperations, ScheduleOperations
):
    """A client of the daemon; usable from several threads and after a fork.

    ``socket``: a socket or a directory of them (default: $TASKD_SOCKET, else the user's own
    daemon, else the system's). ``timeout``: seconds after which a daemon that went away, or does
    not answer, is given up with NoDaemon; one that was never there is reported at once. Waiting
    for a task to end has its own ``timeout`` and by default none.

    Every method raises NoDaemon, or Refused (or a kind of it) saying why.
    """

    _handle = TaskHandle
    _is_async: Literal[False] = False

    def __init__(self, socket: str | None = None, timeout: float = PATIENCE) -> None:
        self._socket = socket
        self._timeout = timeout
        self._reached = Reached()
        self._stand_in = stand_in.current()
        self._lock = RLock()
        self._depth = 0  # how many links the thread that holds the lock is in the middle of
        self._pid = os.getpid()
        self._links = [self._new_link()]

    def wait(self, tasks: Iterable[int], timeout: float | None = None) -> list[TaskInfo]:
        """Wait until all are settled (ended or held); how each ended, in the order given.

        Raises TimeoutError after ``timeout`` seconds; the tasks go on. Without a timeout, in a
        task: Refused if it would wait for ever, since all places of its queue are taken by tasks
        that wait for others there.
        """
        ids = list(tasks)
        if timeout is not None and timeout <= 0:  # one look
            return operations.settled([self.task(task) for task in ids])
        deadline = None if timeout is None else time.monotonic() + timeout
        streams = operations.waits(ids, for_ever=timeout is None)
        items = (item for asked in streams for item in self._stream(asked, deadline))
        settled = {info.id: info for info in (task_info(item["task"]) for item in items)}
        return [settled[task] for task in ids]

    def follow(
        self, tasks: Iterable[int], after: int | Event = 0, progress: bool = False
    ) -> Iterator[Event]:
        """The tasks' events after the event ``after`` (or its number), as they come, until all
        are settled.

        Each event once and in order, over lost connections and deploys; with ``progress`` also
        {progress: {task, done, total, note}}, of which only the latest matters.
        """
        return self._stream(operations.follow(tasks, after, progress), None)

    def close(self) -> None:
        """Close the connections; a later request makes a new one. Those in use by calls that this
        is called within stay open."""
        self._with_link(self._close_from)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _run(self, steps: Steps[T]) -> T:
        try:
            asked = next(steps)
            while True:
                try:
                    ok = self._answer(asked)
                except Refused as error:
                    asked = steps.throw(error)
                else:
                    asked = steps.send(ok)
        except StopIteration as end:
            result: T = end.value
            return result

    def _answer(self, asked: Asked) -> dict[str, Any]:
        if (instead := stand_in.current() or self._stand_in) is not None:
            return instead.answer(asked)
        if asked.op not in NOT_REPEATED:
            return self._with_link(lambda link: link.run(asked, self._timeout))
        with closing(self._new_link()) as link:
            return link.run(asked, None)

    def _stream(self, asked: Asked, deadline: float | None) -> Iterator[dict[str, Any]]:
        if not asked.fields["tasks"]:
            return
        if (instead := stand_in.current() or self._stand_in) is not None:
            yield from instead.items(asked)
            return
        with closing(self._new_link()) as link:
            yield from link.stream(asked, deadline)

    def _with_link(self, use: Callable[[Link], T]) -> T:
        """Call ``use`` with the link of requests; within another call of this thread, with that of
        its depth. Raises NoDaemon if other threads hold the lock for all of the timeout, Refused
        beyond MAX_DEPTH.

        An exception may strike wherever a call returns: also behind ``acquire``, so that whether
        the lock is ours only its ``release`` knows.
        """
        if self._pid != os.getpid():  # after a fork: another thread may have held the lock
            self._lock = RLock()
            self._depth = 0
            self._pid = os.getpid()
        lock = self._lock
        try:
            if not lock.acquire(timeout=self._timeout):
                raise NoDaemon(
                    "other threads' requests over this client were not answered within "
                    f"{self._timeout:g} s, so that this one was not sent"
                )
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
        """The link of this depth, made at its first use. A call that a signal handler makes within
        this function may make it too: one link too many does no harm."""
        if depth >= MAX_DEPTH:
            raise Refused(
                f"{depth} calls of this thread are within one another already, and this one was "
                "not sent: a signal handler (or destructor) that uses the client is called faster "
                "than it ends"
            )
        while len(self._links) <= depth:
            self._links.append(self._new_link())
        return self._links[depth]

    def _close_from(self, first: Link) -> None:
        for link in self._links[self._links.index(first) :]:
            link.close()

    def _new_link(self) -> Link:
        return Link(self._socket, Patience(self._timeout, self._reached))
