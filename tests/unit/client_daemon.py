"""A small daemon for tests of the clients and of the command line: the real protocol over a real
socket, tasks in memory, or canned answers.

Each connection has a thread. The daemon drops connections where a test wants it to: after it has
carried out a request and before it answers, or in the middle of a stream.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.waiting import eventually

from taskd.errors import ProtocolError, Refused, UnknownTask
from taskd.posix.sockets import listen
from taskd.protocol import data
from taskd.protocol.server_side import Answer, Farewell, Hello, Request, ServerSide, farewell

KEPT = ("name", "args", "queue", "priority", "key")
ENDED = ("succeeded", "failed", "cancelled", "held")


def task(number: int, state: str = "queued", **more: Any) -> dict[str, Any]:
    """A TASK of the protocol."""
    facts: dict[str, Any] = {
        "id": number,
        "name": "index",
        "queue": "default",
        "state": state,
        "shown": state,
        "reason": None,
        "attempt": 0,
        "revision": None,
        "progress": None,
        "result": None,
        "error": None,
        "submitted": 1000.0,
        "started": None,
        "ended": None,
        "owner": 0,
        "priority": 0,
        "key": None,
        "run_at": None,
        "expires": None,
    }
    return facts | more


def event(number: int, about: int, state: str, **more: Any) -> dict[str, Any]:
    """An EVENT of the protocol."""
    facts = {"event": number, "task": about, "at": 1000.5, "state": state, "attempt": 1}
    return facts | {"revision": "r1", "reason": None} | more


class Connection:
    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.side = ServerSide()
        self.is_open = True
        self.waits: dict[int, list[int]] = {}
        self.follows: dict[int, dict[str, Any]] = {}


class Daemon:
    """``tasks`` by id; ``seen``: what each request held, in order.

    A callable in ``answers`` answers an operation in place of what stands here, and may block. A
    dict is the reply, a list the items of a stream, which then ends; a tuple likewise, but the
    stream stays open. All else is done under ``lock``.
    """

    def __init__(self, path: str, first: int = 1, page: int = 2**31) -> None:
        """``first``: the first task's id. ``page``: how many tasks one list has at the most."""
        self.path = path
        self.first = first
        self.page = page
        self.lock = threading.RLock()
        self.tasks: dict[int, dict[str, Any]] = {}
        self.submissions: dict[bytes, int] = {}
        self.attempts: dict[int, list[dict[str, Any]]] = {}
        self.events: list[dict[str, Any]] = []
        self.progress: dict[int, dict[str, Any]] = {}
        self.seen: list[tuple[str, dict[str, Any]]] = []
        self.answers: dict[str, Callable[[dict[str, Any]], Any]] = {}
        self.connections = 0
        self.hang_up_before_reply: Counter[str] = Counter()
        self.hang_up_after_items = 0
        self.silent: set[str] = set()
        self.poison: bytes | None = None
        self.goodbye: Exception | None = None
        self.open: list[Connection] = []
        self.start()

    def start(self) -> None:
        self._listener = listen(self.path)
        self._listener.setblocking(True)
        self._serving: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def stop(self) -> None:
        """As a daemon that goes away: connections end, the socket's file stays.

        A blocking call would outlive a descriptor that is only closed, so each is shut down.
        """
        if self._listener.fileno() < 0:
            return
        self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join(30)
        self._listener.close()
        self.hang_up()
        for thread in self._serving:
            thread.join(30)

    @property
    def requests(self) -> Counter[str]:
        """How many requests have come, by operation."""
        return Counter(op for op, _ in self.seen)

    def wait_for(self, op: str) -> None:
        """Until a request for that operation has come."""
        eventually(lambda: self.requests[op], f"a request: {op}", within=60)

    def add(self, *tasks: dict[str, Any]) -> None:
        self.tasks |= {each["id"]: each for each in tasks}

    def known(self, number: int) -> dict[str, Any]:
        try:
            return self.tasks[number]
        except KeyError:
            raise UnknownTask(f"no task {number}") from None

    def move(self, task: int, state: str, result: Any = None, **fields: Any) -> None:
        """A change of a task's state, as a worker's doing would bring it."""
        with self.lock:
            found = self.tasks[task]
            found.update(state=state, **fields)
            if state == "succeeded":
                found["result"] = data.encode(result)
            self._note(found)
            self._serve_streams()

    def report(self, task: int, done: int, total: int) -> None:
        with self.lock:
            self.progress[task] = {"task": task, "done": done, "total": total, "note": ""}
            self._serve_streams()

    def hang_up(self) -> None:
        """End all connections, as a daemon that crashed and was started again."""
        for connection in list(self.open):
            self._shut(connection)

    def has_lost_one(self) -> bool:
        """Whether a client has closed its end of the newest connection."""
        try:
            newest = self.open[-1]
            return newest.sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except (IndexError, OSError):  # seen by the connection's own thread, or not all was read
            return True

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            connection = Connection(sock)
            with self.lock:
                self.connections += 1
                self.open.append(connection)
                if self.goodbye is not None:
                    self._send(connection, farewell(self.goodbye))  # type: ignore[arg-type]
                    self._shut(connection)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._serving.append(thread)
            thread.start()

    def _serve(self, connection: Connection) -> None:
        side = connection.side
        try:
            while raw := connection.sock.recv(65536):
                with self.lock:
                    side.feed(raw)
                    happened = side.next()
                while connection.is_open and happened is not None:
                    self._handle(connection, happened)
                    with self.lock:
                        happened = side.next()
        except ProtocolError as error:
            self._send(connection, farewell(error))
        except OSError:
            pass
        with self.lock:
            self._shut(connection)
            self.open.remove(connection)
            connection.sock.close()

    def _shut(self, connection: Connection) -> None:
        connection.is_open = False
        with contextlib.suppress(OSError):
            connection.sock.shutdown(socket.SHUT_RDWR)

    def _send(self, connection: Connection, raw: bytes) -> None:
        with self.lock:
            try:
                connection.sock.sendall(raw)
            except OSError:
                self._shut(connection)

    def _handle(self, connection: Connection, happened: Any) -> None:
        if isinstance(happened, Hello):
            self._send(connection, connection.side.welcome(os.getuid(), True, "0.3.0"))
        elif isinstance(happened, Answer | Farewell):
            self._send(connection, happened.data)
        elif isinstance(happened, Request):
            self._answer(connection, happened)

    def _answer(self, connection: Connection, request: Request) -> None:
        self.seen.append((request.op, request.fields))
        canned = self.answers.get(request.op)
        answer = _tried(lambda: canned(request.fields)) if canned else None
        with self.lock:
            if not canned:
                own = getattr(self, "do_" + request.op)
                answer = _tried(lambda: own(connection, request))
            raw = self.poison or _in_bytes(connection.side, request.id, answer)
            if self.hang_up_before_reply[request.op] > 0:
                self.hang_up_before_reply[request.op] -= 1
                self._shut(connection)
            elif request.op not in self.silent:
                self._send(connection, raw)
            self._serve_streams()

    def do_submit(self, connection: Connection, request: Request) -> dict[str, Any]:
        return {"tasks": [self._submit(each) for each in request.fields["tasks"]]}

    def _submit(self, submitted: dict[str, Any]) -> dict[str, Any]:
        if submitted["name"] == "unknown":
            raise UnknownTask("no task 'unknown'; did you mean 'known'?")
        known = self.submissions.get(submitted["submission"])
        if known is not None:
            return {"id": known, "created": False}
        number = max(self.tasks, default=self.first - 1) + 1
        self.submissions[submitted["submission"]] = number
        given = {
            name: submitted[name] for name in ("queue", "priority", "key") if name in submitted
        }
        self.add(task(number, name=submitted["name"], args=submitted["args"], **given))
        self._note(self.tasks[number])
        return {"id": number, "created": True}

    def _note(self, about: dict[str, Any]) -> None:
        number = 10 * len(self.events) + 7  # numbers have gaps: other tasks have events too
        facts = {name: about[name] for name in ("attempt", "revision", "reason")}
        self.events.append(event(number, about["id"], about["state"], **facts))

    def do_show(self, connection: Connection, request: Request) -> dict[str, Any]:
        return {"task": self.known(request.fields["task"])}

    def do_attempts(self, connection: Connection, request: Request) -> dict[str, Any]:
        return {"attempts": self.attempts.get(self.known(request.fields["task"])["id"], [])}

    def do_list(self, connection: Connection, request: Request) -> dict[str, Any]:
        before = request.fields.get("before", 2**62)
        found = [task for number, task in sorted(self.tasks.items()) if number < before]
        without = {} if request.fields.get("results") else {"result": None}
        found = [task | without for task in reversed(found)]
        return {"tasks": found[: min(self.page, request.fields.get("limit", 100))]}

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
        task = self.known(request.fields["task"])
        was = task["state"]
        if was not in ENDED:
            task["state"] = "cancelled"
            self._note(task)
        return {"state": task["state"], "was": was}

    def do_retry(self, connection: Connection, request: Request) -> dict[str, Any]:
        task = self.known(request.fields["task"])
        if task["state"] not in ("held", "failed", "cancelled"):
            raise Refused(f"task {task['id']} is {task['state']}")
        task["state"] = "queued"
        self._note(task)
        return {"state": "queued"}

    def do_wait(self, connection: Connection, request: Request) -> dict[str, Any]:
        for number in request.fields["tasks"]:
            self.known(number)
        connection.waits[request.id] = list(request.fields["tasks"])
        return {}

    def do_follow(self, connection: Connection, request: Request) -> dict[str, Any]:
        for number in request.fields["tasks"]:
            self.known(number)
        connection.follows[request.id] = {"after": 0, "told": {}, **request.fields}
        return {}

    def do_stop(self, connection: Connection, request: Request) -> dict[str, Any]:
        connection.waits.pop(request.fields["stream"], None)
        connection.follows.pop(request.fields["stream"], None)
        return {}

    def _serve_streams(self) -> None:
        for connection in list(self.open):
            for number in list(connection.waits):
                self._serve_wait(connection, number)
            for number in list(connection.follows):
                self._serve_follow(connection, number)

    def _serve_wait(self, connection: Connection, number: int) -> None:
        left = connection.waits[number]
        for task in [task for task in left if self.tasks[task]["state"] in ENDED]:
            left.remove(task)
            self._item(connection, number, {"task": self.tasks[task]})
            if not connection.is_open:
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
                if not connection.is_open:
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
                self._shut(connection)


@pytest.fixture
def gate(daemon: Daemon) -> Iterator[threading.Event]:
    """Holds up a canned answer; it is open before the daemon's threads are waited for."""
    gate = threading.Event()
    yield gate
    gate.set()


def _tried(answer: Callable[[], Any]) -> Any:
    try:
        return answer()
    except Refused as error:
        return error


def _in_bytes(side: ServerSide, number: int, answer: Any) -> bytes:
    if isinstance(answer, Refused):
        return side.refuse(number, answer)
    if isinstance(answer, dict):
        return side.reply(number, answer)
    parts = [side.reply(number, {}), *(side.item(number, item) for item in answer)]
    return b"".join([*parts, side.end(number, {})] if isinstance(answer, list) else parts)
