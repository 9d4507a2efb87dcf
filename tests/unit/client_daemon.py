"""A small daemon for tests of the clients: the real protocol over a real socket, tasks in memory.

It runs in a thread. ``hang_up_after`` makes it drop connections at chosen points: after it has
carried out a request and before it answers, or in the middle of a stream.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import threading
from collections import Counter
from typing import Any

from taskd.errors import ProtocolError, Refused, UnknownTask
from taskd.posix.sockets import listen
from taskd.protocol import data
from taskd.protocol.server_side import Answer, Farewell, Hello, Request, ServerSide, farewell

ENDED = ("succeeded", "failed", "cancelled", "held")


class Connection:
    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.side = ServerSide()
        self.waits: dict[int, list[int]] = {}
        self.follows: dict[int, dict[str, Any]] = {}


class Daemon:
    """``requests`` counts what came, by operation; everything is touched by its thread alone,
    or under ``lock``."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.lock = threading.RLock()
        self.tasks: dict[int, dict[str, Any]] = {}
        self.submissions: dict[bytes, int] = {}
        self.events: list[dict[str, Any]] = []
        self.progress: dict[int, dict[str, Any]] = {}
        self.requests: Counter[str] = Counter()
        self.connections = 0
        self.hang_up_before_reply: Counter[str] = Counter()
        self.hang_up_after_items = 0
        self.silent: set[str] = set()
        self.poison: bytes | None = None
        self.goodbye: Exception | None = None
        self.selector = selectors.DefaultSelector()
        self.open: dict[int, Connection] = {}
        self.wake_read, self.wake_write = os.pipe()
        self.start()

    def start(self) -> None:
        self.listener = listen(self.path)
        self.stopping = False
        self.selector.register(self.listener, selectors.EVENT_READ, self._accept)
        self.selector.register(self.wake_read, selectors.EVENT_READ, self._woken)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """As a daemon that goes away: connections end, the socket's file stays."""
        self.stopping = True
        os.write(self.wake_write, b"x")
        self.thread.join()
        for connection in list(self.open.values()):
            self._close(connection)
        self.selector.unregister(self.listener)
        self.selector.unregister(self.wake_read)
        self.listener.close()

    def close(self) -> None:
        if self.thread.is_alive():
            self.stop()
        self.selector.close()
        os.close(self.wake_read)
        os.close(self.wake_write)

    def move(self, task: int, state: str, result: Any = None, **fields: Any) -> None:
        """A change of a task's state, as a worker's doing would bring it."""
        with self.lock:
            found = self.tasks[task]
            found.update(state=state, **fields)
            if state == "succeeded":
                found["result"] = data.encode(result)
            self._event(task)
        os.write(self.wake_write, b"x")

    def report(self, task: int, done: int, total: int) -> None:
        with self.lock:
            self.progress[task] = {"task": task, "done": done, "total": total, "note": ""}
        os.write(self.wake_write, b"x")

    def hang_up(self) -> None:
        """Drop all connections, as a crash would."""
        with self.lock:
            for connection in list(self.open.values()):
                with contextlib.suppress(OSError):  # our thread has just closed it
                    connection.sock.shutdown(socket.SHUT_RDWR)

    def _event(self, task: int) -> None:
        number = 10 * len(self.events) + 7  # numbers have gaps: other tasks have events too
        found = self.tasks[task]
        self.events.append(
            {
                "event": number,
                "task": task,
                "at": 1.5,
                "state": found["state"],
                "attempt": found["attempt"],
                "revision": found["revision"],
                "reason": found["reason"],
            }
        )

    def _run(self) -> None:
        while not self.stopping:
            for key, _ in self.selector.select():
                key.data(key.fileobj)
            with self.lock:
                self._serve_streams()

    def _woken(self, _: Any) -> None:
        os.read(self.wake_read, 4096)

    def _accept(self, _: Any) -> None:
        sock, _address = self.listener.accept()
        connection = Connection(sock)
        self.connections += 1
        self.open[sock.fileno()] = connection
        self.selector.register(sock, selectors.EVENT_READ, lambda _: self._read(connection))
        if self.goodbye is not None:
            self._send(connection, farewell(self.goodbye))  # type: ignore[arg-type]
            self._close(connection)

    def _close(self, connection: Connection) -> None:
        if connection.sock.fileno() >= 0:
            del self.open[connection.sock.fileno()]
            self.selector.unregister(connection.sock)
            connection.sock.close()

    def _send(self, connection: Connection, raw: bytes) -> None:
        try:
            connection.sock.sendall(raw)
        except OSError:
            self._close(connection)

    def _read(self, connection: Connection) -> None:
        try:
            raw = connection.sock.recv(65536)
        except OSError:
            raw = b""
        if not raw:
            self._close(connection)
            return
        connection.side.feed(raw)
        with self.lock:
            try:
                while connection.sock.fileno() >= 0 and (event := connection.side.next()):
                    self._handle(connection, event)
            except ProtocolError as error:
                self._send(connection, farewell(error))
                self._close(connection)

    def _handle(self, connection: Connection, event: Any) -> None:
        side = connection.side
        if isinstance(event, Hello):
            self._send(connection, side.welcome(os.getuid(), True, "0.1.0"))
        elif isinstance(event, Answer | Farewell):
            self._send(connection, event.data)
        elif isinstance(event, Request):
            self.requests[event.op] += 1
            self._answer(connection, event)

    def _answer(self, connection: Connection, request: Request) -> None:
        side = connection.side
        try:
            ok = getattr(self, "do_" + request.op)(connection, request)
        except Refused as error:
            raw = side.refuse(request.id, error)
        else:
            raw = side.reply(request.id, ok)
        if self.poison is not None:
            raw = self.poison
        if self.hang_up_before_reply[request.op] > 0:
            self.hang_up_before_reply[request.op] -= 1
            self._close(connection)
        elif request.op not in self.silent:
            self._send(connection, raw)

    def do_submit(self, connection: Connection, request: Request) -> dict[str, Any]:
        return {"tasks": [self._submit(task) for task in request.fields["tasks"]]}

    def _submit(self, task: dict[str, Any]) -> dict[str, Any]:
        if task["name"] == "unknown":
            raise UnknownTask("no task 'unknown'; did you mean 'known'?")
        known = self.submissions.get(task["submission"])
        if known is not None:
            return {"id": known, "created": False}
        number = len(self.tasks) + 1
        self.submissions[task["submission"]] = number
        self.tasks[number] = {
            "id": number,
            "name": task["name"],
            "queue": task.get("queue", "default"),
            "state": "queued",
            "shown": "queued",
            "reason": None,
            "attempt": 0,
            "revision": None,
            "progress": None,
            "result": None,
            "error": None,
            "submitted": 1.0,
            "started": None,
            "ended": None,
            "owner": 0,
            "priority": task.get("priority", 0),
            "key": task.get("key"),
            "run_at": None,
            "args": task["args"],
        }
        self._event(number)
        return {"id": number, "created": True}

    def _find(self, number: int) -> dict[str, Any]:
        try:
            return self.tasks[number]
        except KeyError:
            raise UnknownTask(f"no task {number}") from None

    def do_show(self, connection: Connection, request: Request) -> dict[str, Any]:
        return {"task": self._find(request.fields["task"])}

    def do_list(self, connection: Connection, request: Request) -> dict[str, Any]:
        before = request.fields.get("before", 2**62)
        found = [task for number, task in sorted(self.tasks.items()) if number < before]
        found = [{**task, "result": None} for task in reversed(found)]
        return {"tasks": found[: min(3, request.fields.get("limit", 100))]}

    def do_status(self, connection: Connection, request: Request) -> dict[str, Any]:
        return {"pid": os.getpid(), "states": {"queued": len(self.tasks)}}

    def do_revisions(self, connection: Connection, request: Request) -> dict[str, Any]:
        return {"revisions": [{"revision": "r1"}]}

    def do_reload(self, connection: Connection, request: Request) -> dict[str, Any]:
        return {"revision": request.fields.get("release", "r2"), "previous": "r1", "pause": 0.1}

    def do_log(self, connection: Connection, request: Request) -> dict[str, Any]:
        raw, offset = b"one\ntwo\n", request.fields.get("offset", 0)
        return {"data": raw[offset:], "offset": len(raw), "size": len(raw), "ended": False}

    def do_cancel(self, connection: Connection, request: Request) -> dict[str, Any]:
        task = self._find(request.fields["task"])
        was = task["state"]
        if was not in ENDED:
            task["state"] = "cancelled"
            self._event(task["id"])
        return {"state": task["state"], "was": was}

    def do_retry(self, connection: Connection, request: Request) -> dict[str, Any]:
        task = self._find(request.fields["task"])
        if task["state"] not in ("held", "failed", "cancelled"):
            raise Refused(f"task {task['id']} is {task['state']}")
        task["state"] = "queued"
        self._event(task["id"])
        return {"state": "queued"}

    def do_wait(self, connection: Connection, request: Request) -> dict[str, Any]:
        for number in request.fields["tasks"]:
            self._find(number)
        connection.waits[request.id] = list(request.fields["tasks"])
        return {}

    def do_follow(self, connection: Connection, request: Request) -> dict[str, Any]:
        for number in request.fields["tasks"]:
            self._find(number)
        connection.follows[request.id] = {"after": 0, "told": {}, **request.fields}
        return {}

    def do_stop(self, connection: Connection, request: Request) -> dict[str, Any]:
        connection.waits.pop(request.fields["stream"], None)
        connection.follows.pop(request.fields["stream"], None)
        return {}

    def _serve_streams(self) -> None:
        for connection in list(self.open.values()):
            for number in list(connection.waits):
                self._serve_wait(connection, number)
            for number in list(connection.follows):
                self._serve_follow(connection, number)

    def _serve_wait(self, connection: Connection, number: int) -> None:
        left = connection.waits[number]
        for task in [task for task in left if self.tasks[task]["state"] in ENDED]:
            left.remove(task)
            self._item(connection, number, {"task": self.tasks[task]})
            if connection.sock.fileno() < 0:
                return
        if not left:
            del connection.waits[number]
            self._send(connection, connection.side.end(number, {}))

    def _serve_follow(self, connection: Connection, number: int) -> None:
        stream = connection.follows[number]
        for event in self.events:
            if event["task"] in stream["tasks"] and event["event"] > stream["after"]:
                stream["after"] = event["event"]
                self._item(connection, number, event)
                if connection.sock.fileno() < 0:
                    return
        for task in stream["tasks"] if stream.get("progress") else []:
            told = self.progress.get(task)
            if told is not None and stream["told"].get(task) != told:
                stream["told"][task] = told
                self._item(connection, number, {"progress": told})
        if all(self.tasks[task]["state"] in ENDED for task in stream["tasks"]):
            del connection.follows[number]
            self._send(connection, connection.side.end(number, {}))

    def _item(self, connection: Connection, number: int, fields: dict[str, Any]) -> None:
        self._send(connection, connection.side.item(number, fields))
        if self.hang_up_after_items > 0:
            self.hang_up_after_items -= 1
            if self.hang_up_after_items == 0:
                self._close(connection)
