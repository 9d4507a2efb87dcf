"""A call that is cut off, or called within another one, at every step: the next answers are right.

A signal's handler runs, and may raise, where a call begins or has returned from C: at these moments
the profiler calls us, so that each of them has its turn.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pathlib
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest
from client_daemon import Connection, Daemon

from taskd import Client, errors
from taskd.client.blocking import MAX_DEPTH
from taskd.protocol import data
from taskd.protocol.server_side import Request

pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning",  # cbor2 swallows some, and goes on
)

AT_EXIT = """
import sys
from taskd import Client
class Late:
    client = Client(sys.argv[1])
    {before}
    def __del__(self):
        try:
            print(self.client.submit("known", {args}).id)
        except Exception as error:
            print(repr(error))
late = Late()
"""


class Cut(Exception):
    """What a signal handler raises."""


class Moment:
    """Does ``what`` at the ``number``-th moment of this thread at which a handler may run."""

    def __init__(self, number: int, what: Callable[[], Any]) -> None:
        self.left = number
        self.what = what
        self.came = False

    def __call__(self, _frame: FrameType, event: str, _about: Any) -> None:
        if event not in ("call", "c_return") or self.came:
            return
        self.left -= 1
        if self.left < 0:
            self.came = True
            self.what()

    def during(self, call: Callable[[], Any]) -> Any:
        sys.setprofile(self)
        try:
            return call()
        finally:
            sys.setprofile(None)


def cut() -> None:
    raise Cut


def from_another_thread(call: Callable[[], Any]) -> Any:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(call()), daemon=True)
    thread.start()
    thread.join(60)
    assert found, "it hangs"
    return found[0]


def arguments(client: Client, task: int, daemon: Daemon) -> Any:
    with daemon.lock:
        return data.decode(daemon.tasks[task]["args"])


def each_moment(call: Callable[[int], Any], what: Callable[[], Any]) -> Iterator[Any]:
    """``call`` again and again, ``what`` at another moment of it each time, until it has none."""
    for number in itertools.count():
        moment = Moment(number, what)
        try:
            found = moment.during(lambda number=number: call(number))  # type: ignore[misc]
        except Cut:
            found = None
        if not moment.came:
            return
        yield found


@pytest.mark.parametrize("is_new", [True, False])
def test_a_call_that_is_cut_off_anywhere_spoils_no_other(daemon: Daemon, is_new: bool) -> None:
    client = Client(daemon.path)

    def submit(number: int) -> Any:
        if is_new:
            client.close()
        return client.submit("known", {"cut": number})

    number = 0
    for number, _ in enumerate(each_moment(submit, cut)):
        task = client.submit("known", {"after": number}).id
        assert arguments(client, task, daemon) == {"after": number}
        assert from_another_thread(client.status)["pid"] == os.getpid()
    assert number > 30
    client.close()


def test_a_submission_that_is_cut_off_is_there_once_or_not_at_all(daemon: Daemon) -> None:
    client = Client(daemon.path)
    for _ in each_moment(lambda number: client.submit("known", {"cut": number}), cut):
        pass
    client.close()
    with daemon.lock:
        found = [data.decode(task["args"])["cut"] for task in daemon.tasks.values()]
    assert len(found) == len(set(found))


@pytest.mark.parametrize("is_new", [True, False])
def test_a_call_within_a_call_has_its_own_answer(daemon: Daemon, is_new: bool) -> None:
    client = Client(daemon.path, timeout=20)
    within: list[int] = []

    def submit(number: int) -> int:
        if is_new:
            client.close()
        return client.submit("known", {"outer": number}).id

    def note() -> None:
        within.append(client.submit("known", {"inner": len(within)}).id)

    outer = list(each_moment(submit, note))
    assert len(outer) == len(within) > 30
    for number, (one, other) in enumerate(zip(outer, within, strict=True)):
        assert arguments(client, one, daemon) == {"outer": number}
        assert arguments(client, other, daemon) == {"inner": number}
    client.close()


class Alarming(Daemon):
    """Sends the main thread a signal before it answers a submission: the handler runs within the
    call, as one of a timer that is faster than the daemon."""

    def do_submit(self, connection: Connection, request: Request) -> dict[str, Any]:
        main = threading.main_thread().ident
        assert main is not None
        signal.pthread_kill(main, signal.SIGUSR1)
        return super().do_submit(connection, request)


@pytest.fixture
def alarming(tmp_path: pathlib.Path) -> Iterator[Alarming]:
    made = Alarming(str(tmp_path / "alarming.sock"))
    before = signal.getsignal(signal.SIGUSR1)
    yield made
    signal.signal(signal.SIGUSR1, before)
    made.stop()


def test_calls_within_calls_keep_their_connections_and_end_at_a_depth(alarming: Alarming) -> None:
    client = Client(alarming.path, timeout=20)
    made: list[int] = []
    refused: list[str] = []

    def submit(*_: object) -> None:
        try:
            made.append(client.submit("known", {"number": len(made)}).id)
        except errors.Refused as error:
            refused.append(str(error))

    signal.signal(signal.SIGUSR1, submit)
    for _ in range(3):
        submit()
    assert sorted(made) == list(range(1, 3 * MAX_DEPTH + 1))
    assert len(refused) == 3
    assert refused[0].startswith(f"{MAX_DEPTH} calls of this thread are within")
    assert alarming.connections == MAX_DEPTH
    client.close()
    with alarming.lock:
        assert len(alarming.tasks) == 3 * MAX_DEPTH
    assert client.status()["pid"] == os.getpid()
    client.close()


def test_a_client_that_is_closed_within_a_call_answers_it(daemon: Daemon) -> None:
    client = Client(daemon.path, timeout=20)
    for answer in each_moment(lambda _: client.status(), client.close):
        assert answer["pid"] == os.getpid()
    client.close()


def test_a_call_waits_for_another_threads_no_longer_than_its_timeout(daemon: Daemon) -> None:
    client = Client(daemon.path, timeout=0.2)
    is_within, goes_on = threading.Event(), threading.Event()

    def stay() -> None:
        is_within.set()
        goes_on.wait(60)

    client.status()
    moment = Moment(20, stay)

    def call() -> None:
        with contextlib.suppress(errors.NoDaemon):  # it was held up for longer than it waits
            moment.during(client.status)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    assert is_within.wait(60)
    with pytest.raises(errors.NoDaemon, match=r"other threads' requests .* within 0\.2 s"):
        client.status()
    goes_on.set()
    thread.join(60)
    assert client.status()["pid"] == os.getpid()
    client.close()


@pytest.mark.parametrize("before", ["", "client.status()"])
@pytest.mark.parametrize(
    ("args", "said"),
    [({"at": "exit", "with": b"bytes"}, "1"), ({"at": (1, 2)}, "Refused('args cannot be encoded")],
)
def test_a_destructor_at_the_interpreters_exit_submits_or_is_told_why(
    daemon: Daemon, before: str, args: dict[str, Any], said: str
) -> None:
    words = [sys.executable, "-c", AT_EXIT.format(before=before, args=args), daemon.path]
    ran = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0
    assert ran.stdout.startswith(said), ran.stderr
    assert ran.stderr == ""


def test_text_that_has_no_form_in_utf8_is_refused_before_anything_is_sent(daemon: Daemon) -> None:
    client = Client(daemon.path)
    for attempt, field in [
        (lambda: client.submit("known", key="\ud800"), "key"),
        (lambda: client.submit("kn\udcffown"), "name"),
        (lambda: client.submit("known", queue="\udfff"), "queue"),
        (lambda: client.submit("known", {"\ud800": 1}), "args"),
        (lambda: client.submit("known", {"x": ["\ud800"]}), "args"),
        (lambda: client.submit("command", {}, options={"on_deploy": "\ud800"}), "on_deploy"),
        (lambda: client.tasks(queue="\ud800"), "queue"),
        (lambda: client.tasks(name="\ud800"), "name"),
        (lambda: client.drain("r\udcff"), "revision"),
        (lambda: client.reload("/srv/\udcff"), "release"),
    ]:
        with pytest.raises(errors.Refused, match=field) as raised:
            attempt()
        str(raised.value).encode()
    assert daemon.connections == 0


@pytest.mark.parametrize("path", ["/tmp/\ud800", "/tmp/a\0b"])
def test_a_socket_whose_name_is_none_is_told(path: str) -> None:
    with pytest.raises(errors.NoDaemon, match="no daemon is reachable"):
        Client(path).status()
