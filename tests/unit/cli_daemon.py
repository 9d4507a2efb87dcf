"""A daemon for the command line's tests: the real protocol on a real socket, canned answers."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.waiting import eventually

from taskd.cli import taskctl
from taskd.errors import Refused, UnknownTask
from taskd.protocol import data
from taskd.protocol.server_side import Hello, Request, ServerSide

Items = list[dict[str, Any]]
Run = Callable[..., tuple[int, str, str]]

COMMAND = "import sys; from taskd.cli.taskctl import main; sys.exit(main())"

TASK_FIELDS = [
    "id", "name", "queue", "state", "reason", "attempt", "revision", "progress", "result",
    "error", "submitted", "started", "ended",
]  # fmt: skip


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
    }
    return facts | more


def succeeded(number: int, result: Any = None) -> dict[str, Any]:
    return task(
        number, "succeeded", attempt=1, revision="r1", started=1001.0, ended=1003.5,
        result=data.encode(result, "result", 2**20),
    )  # fmt: skip


def failed(number: int) -> dict[str, Any]:
    error = {"type": "ValueError", "message": "no such file\nreally", "traceback": "in f\n\tx\n"}
    return task(number, "failed", attempt=1, started=1001.0, ended=1002.0, error=error)


def event(number: int, about: int, state: str, **more: Any) -> dict[str, Any]:
    facts = {"event": number, "task": about, "at": 1000.5, "state": state, "attempt": 1}
    return facts | {"revision": "r1", "reason": None} | more


class Daemon:
    """``tasks`` by id, what each request held in ``seen``; a callable in ``answers`` answers an
    operation in place of what stands here. A list is the items of a stream, which then ends; a
    tuple likewise, but the stream stays open."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "control.sock")
        self.tasks: dict[int, dict[str, Any]] = {}
        self.seen: list[tuple[str, dict[str, Any]]] = []
        self.answers: dict[str, Callable[[dict[str, Any]], Any]] = {
            "show": lambda fields: {"task": self.known(fields["task"])},
            "list": lambda fields: {"tasks": self.listed(fields)},
            "submit": self.submitted,
            "wait": lambda fields: [{"task": self.known(n)} for n in fields["tasks"]],
        }
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen()
        self._heard = threading.Condition()
        self._connections: list[socket.socket] = []
        self._serving: list[threading.Thread] = []
        self._accepts = threading.Thread(target=self._accept, daemon=True)
        self._accepts.start()

    def add(self, *tasks: dict[str, Any]) -> None:
        self.tasks |= {each["id"]: each for each in tasks}

    def known(self, number: int) -> dict[str, Any]:
        if number not in self.tasks:
            raise UnknownTask(f"no task {number}")
        return self.tasks[number]

    def listed(self, fields: dict[str, Any]) -> Items:
        below = fields.get("before", 2**63)
        found = [each for number, each in sorted(self.tasks.items(), reverse=True)
                 if number < below]  # fmt: skip
        return [each | {"result": None} for each in found[: fields["limit"]]]

    def submitted(self, fields: dict[str, Any]) -> dict[str, Any]:
        number = max(self.tasks, default=16) + 1
        self.add(task(number, name=fields["tasks"][0]["name"]))
        return {"tasks": [{"id": number, "created": True}]}

    def wait_for(self, op: str) -> None:
        """Until a request for that operation has come."""
        with self._heard:
            assert self._heard.wait_for(lambda: any(op == each for each, _ in self.seen), 60)

    def hang_up(self) -> None:
        """End all connections, as a daemon that crashed and was started again."""
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def has_lost_one(self) -> bool:
        """Whether a client has closed its end of the newest connection."""
        try:
            return self._connections[-1].recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except ConnectionResetError:  # and had not read all that we said
            return True

    def close(self) -> None:
        """Its threads end: a blocking call would outlive a descriptor that is only closed."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._accepts.join(30)
        self._listener.close()
        self.hang_up()
        for thread in self._serving:
            thread.join(30)
        for connection in self._connections:
            connection.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            serving = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._serving.append(serving)
            serving.start()

    def _serve(self, connection: socket.socket) -> None:
        side = ServerSide()
        try:
            while received := connection.recv(65536):
                side.feed(received)
                while (happened := side.next()) is not None:
                    connection.sendall(b"".join(self._answer(side, happened)))
        except OSError:
            return

    def _answer(self, side: ServerSide, happened: Any) -> Iterable[bytes]:
        if isinstance(happened, Hello):
            return [side.welcome(0, True, "0.1.0")]
        assert isinstance(happened, Request)
        with self._heard:
            self.seen.append((happened.op, happened.fields))
            self._heard.notify_all()
        try:
            answer = self.answers[happened.op](happened.fields)
        except Refused as error:
            return [side.refuse(happened.id, error)]
        if isinstance(answer, dict):
            return [side.reply(happened.id, answer)]
        opened = side.reply(happened.id, {})
        items = [side.item(happened.id, item) for item in answer]
        ended = [side.end(happened.id, {})] if isinstance(answer, list) else []
        return [opened, *items, *ended]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path)
    yield daemon
    daemon.close()


@pytest.fixture
def run(daemon: Daemon, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """taskctl in this process: (exit status, stdout, stderr)."""
    monkeypatch.setenv("TASKD_SOCKET", daemon.path)

    def ran(*words: str) -> tuple[int, str, str]:
        try:
            status = taskctl.main(words)
        except SystemExit as end:  # argparse's way out
            status = int(end.code or 0)
        return status, *capfd.readouterr()

    return ran


def spawn(daemon: Daemon, *words: str, **more: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *words],
        env=os.environ | {"TASKD_SOCKET": daemon.path},
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | more,
    )


def signal_asleep(ran: subprocess.Popen[bytes], number: int) -> None:
    """A signal to a taskctl that has sent its request, once it sleeps.

    Just before its read begins to sleep, Python would note the signal and see to it only when
    the read returns.
    """
    stat = Path(f"/proc/{ran.pid}/stat")
    eventually(lambda: stat.read_text().rpartition(")")[2].split()[0] == "S", "taskctl waits")
    ran.send_signal(number)


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]
