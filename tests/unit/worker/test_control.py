"""The control thread: what the master says reaches the task, and its loss reaches whoever waits."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from descriptors import descriptors
from forked import in_child
from support.waiting import eventually

from taskd.api.interrupt import Interrupted
from taskd.api.recorder import Wish
from taskd.posix import process, sockets
from taskd.protocol import frames
from taskd.slot.writer import SlotWriter
from taskd.worker.channel import Channel
from taskd.worker.control import Control, Order, Questions

RUN = {
    "type": "run",
    "task": 7,
    "attempt": 2,
    "name": "work",
    "args": b"args",
    "saved": None,
    "log": "/log",
    "scratch": "/scratch",
    "at": 1.5,
    "version": 1,
    "log_limit": None,
}


class Talk:
    """A worker's control, and the master's end of its channel, played by the test."""

    def __init__(self, folder: Path) -> None:
        ours, self.master = socket.socketpair()
        self.master.settimeout(20)
        self.slot = SlotWriter.create(str(folder), b"w" * 16, process.identity(), "r1")
        self.control = Control(Channel(ours), self.slot)
        self.control.start()
        self._decoder = frames.Decoder()

    def asked(self, seconds: float) -> bool:
        """Whether the task is asked to leave or cancelled within so many seconds."""
        return self.control.wait_for(lambda: self.control.wish() is not None, seconds)

    def say(self, **message: Any) -> None:
        self.master.sendall(frames.encode(message))

    def hear(self) -> dict[str, Any]:
        while (message := self._decoder.next()) is None:
            data = self.master.recv(65536)
            assert data, "it hung up"
            self._decoder.feed(data)
        return message


@pytest.fixture
def talk(tmp_path: Path) -> Iterator[Talk]:
    made = Talk(tmp_path)
    yield made
    made.master.close()
    made.control.idle(True)  # else its thread would look for another master for ever


def begun(talk: Talk) -> Order:
    talk.control.idle(True)
    assert talk.hear() == {"type": "idle", "reusable": True}
    talk.say(**RUN)
    order = talk.control.next_order()
    assert order is not None
    return order


def test_an_order_is_what_the_master_sent(talk: Talk) -> None:
    assert begun(talk) == Order(7, 2, "work", b"args", None, "/log", "/scratch", 1.5, 1)


def test_an_order_names_the_version_of_what_is_saved_or_submitted(talk: Talk) -> None:
    talk.say(**RUN | {"version": 3})
    order = talk.control.next_order()
    assert isinstance(order, Order)
    assert order.version == 3


def test_a_plan_is_handed_over_like_a_task_and_answered(talk: Talk) -> None:
    talk.say(type="plan", path="/a/b.plan")
    assert talk.control.next_order() == Questions("/a/b.plan")
    talk.control.planned({"checked": 1, "migrated": 0, "refused": [], "probe": None})
    told = {"checked": 1, "migrated": 0, "refused": [], "probe": None}
    assert talk.hear() == {"type": "planned", **told}


def test_large_arguments_come_in_a_file_that_is_removed(talk: Talk, tmp_path: Path) -> None:
    import cbor2

    path = tmp_path / "x.load"
    path.write_bytes(cbor2.dumps({"args": b"a" * 99, "saved": b"s"}))
    talk.say(**RUN | {"args": b"", "load": str(path)})
    order = talk.control.next_order()
    assert order is not None
    assert (order.args, order.saved, path.exists()) == (b"a" * 99, b"s", False)


@pytest.mark.parametrize("kind", ["leave", "cancel"])
def test_a_wish_ends_a_wait_at_once(talk: Talk, kind: str) -> None:
    begun(talk)
    assert talk.control.wish() is None
    talk.say(type=kind, task=7, attempt=2, why="so")
    assert talk.asked(20)
    assert talk.control.wish() == Wish(kind, "so")


def test_a_cancel_goes_before_a_leave_and_a_leave_never_before_a_cancel(talk: Talk) -> None:
    begun(talk)
    for kind, why in (("leave", "first"), ("cancel", "second"), ("leave", "third")):
        talk.say(type=kind, task=7, attempt=2, why=why)
    talk.say(type="noted", task=7, attempt=2, answer="recorded")
    assert talk.control.wait_until_noted()
    assert talk.control.wish() == Wish("cancel", "second")


def test_a_cancel_that_nobody_has_read_yet_keeps_the_task_from_beginning(talk: Talk) -> None:
    begun(talk)
    for task in range(100, 4000):  # more than one read brings
        talk.say(type="cancel", task=task, attempt=1, why="of another")
    talk.say(type="cancel", task=7, attempt=2, why="so")
    with pytest.raises(Interrupted, match="so"):
        talk.control.heed_cancel()


def test_a_wish_to_leave_lets_a_task_begin(talk: Talk) -> None:
    begun(talk)
    talk.say(type="leave", task=7, attempt=2, why="a deploy")
    talk.control.heed_cancel()
    assert talk.asked(20)


def test_a_master_that_is_lost_lets_a_task_begin(talk: Talk) -> None:
    begun(talk)
    talk.master.close()
    talk.control.heed_cancel()


def test_a_wish_for_another_attempt_is_not_this_ones(talk: Talk) -> None:
    begun(talk)
    for task, attempt in ((7, 1), (8, 2)):
        talk.say(type="cancel", task=task, attempt=attempt, why="late")
        talk.say(type="noted", task=task, attempt=attempt, answer="recorded")
    talk.say(type="leave", task=7, attempt=2, why="mine")
    assert talk.asked(20)
    assert talk.control.wish() == Wish("leave", "mine")


def test_a_wish_does_not_outlive_its_attempt(talk: Talk) -> None:
    begun(talk)
    talk.say(type="cancel", task=7, attempt=2, why="so")
    talk.say(type="noted", task=7, attempt=2, answer="recorded")
    assert talk.control.wait_until_noted()
    talk.control.idle(True)
    assert talk.control.wish() is None


def test_what_is_not_known_here_is_ignored(talk: Talk) -> None:
    talk.say(type="of tomorrow", task=7)
    assert begun(talk).task == 7


def test_a_retired_worker_gets_no_order(talk: Talk) -> None:
    talk.say(type="retire")
    assert talk.control.next_order() is None


def test_an_order_that_was_not_begun_when_the_master_is_lost_is_dropped(talk: Talk) -> None:
    talk.say(**RUN)
    talk.master.close()
    eventually(lambda: talk.control._channel.lost)
    assert talk.control.next_order() is None


def test_whoever_waits_for_a_master_that_is_lost_is_told(talk: Talk) -> None:
    order = begun(talk)
    talk.control.ended(order, 4096, True)
    assert talk.hear()["offset"] == 4096
    talk.master.close()
    assert not talk.control.wait_until_noted()


def test_the_last_progress_goes_out_before_the_end(talk: Talk) -> None:
    order = begun(talk)
    for done in range(1, 200):
        report = {"task": 7, "attempt": 2, "done": done, "total": 199, "note": ""}
        talk.control.progress(report)
    talk.control.ended(order, 1, False)
    seen = []
    while (message := talk.hear())["type"] != "ended":
        seen.append(message["done"])
    assert seen[-1] == 199
    assert seen == sorted(seen)


class Held:
    """Holds up the progress that the control thread has taken and not sent yet."""

    def __init__(self, talk: Talk) -> None:
        self._send = talk.control._channel.send
        self.taken, self.go = threading.Event(), threading.Event()
        self.let_go: list[bool] = []
        talk.control._channel.send = self.send  # type: ignore[method-assign]
        talk.control.progress({"task": 7, "attempt": 2, "done": 1, "total": 2, "note": ""})
        assert self.taken.wait(20)

    def send(self, message: dict[str, Any]) -> None:
        if message["type"] == "progress" and not self.taken.is_set():
            self.taken.set()
            self.let_go.append(self.go.wait(20))
        self._send(message)


def test_a_progress_that_is_on_its_way_is_not_overtaken_by_the_end(talk: Talk) -> None:
    order = begun(talk)
    held = Held(talk)
    ends = threading.Thread(target=talk.control.ended, args=(order, 1, True))
    ends.start()
    ends.join(0.2)
    held.go.set()
    assert [talk.hear()["type"] for _ in range(2)] == ["progress", "ended"]
    ends.join(20)


def test_a_progress_that_the_master_does_not_take_holds_up_no_task(talk: Talk) -> None:
    begun(talk)
    held = Held(talk)
    talk.control.progress({"task": 7, "attempt": 2, "done": 2, "total": 2, "note": ""})
    talk.control.saved(durable=False)
    assert not talk.asked(0)
    held.go.set()
    assert [talk.hear()["done"] for _ in range(2)] == [1, 2]
    assert held.let_go == [True]


def test_a_loss_in_the_middle_of_a_task_is_no_wish(talk: Talk) -> None:
    """A worker whose master died finishes what it does."""
    begun(talk)
    talk.master.close()
    eventually(lambda: talk.control._channel.lost)
    assert not talk.asked(0)
    assert talk.control.wish() is None


def test_a_task_that_closes_all_descriptors_leaves_nobody_waiting(tmp_path: Path) -> None:
    """Its channel and the control thread's eventfd are gone with them."""

    def under_test() -> bool:
        before = descriptors()
        talk = Talk(tmp_path)
        begun(talk)
        for fd in descriptors() - before - {talk.master.fileno()}:
            os.close(fd)
        with contextlib.suppress(BrokenPipeError):  # nobody holds the channel's other end any more
            talk.say(type="leave", task=7, attempt=2, why="never heard")
        return talk.control.wait_until_noted()

    assert in_child(under_test) is False


def heard_of(sock: socket.socket, count: int) -> list[dict[str, Any]]:
    decoder, found = frames.Decoder(), []
    sock.settimeout(20)
    while len(found) < count:
        decoder.feed(sock.recv(65536))
        while (message := decoder.next()) is not None:
            found.append(message)
    return found


def test_the_next_master_hears_who_it_is_what_runs_and_what_the_last_one_may_have_missed(
    tmp_path: Path,
) -> None:
    address = str(tmp_path / "worker.sock")
    with contextlib.closing(sockets.listen(address)) as listener:
        listener.settimeout(20)
        slot = SlotWriter.create(str(tmp_path), b"w" * 16, process.identity(), "r1")
        control = Control(Channel.connect(address), slot, address)
        control.greet(b"w" * 16, process.identity(), slot.name)
        control.start()
        first, _ = listener.accept()
        assert heard_of(first, 1)[0]["busy"] is None
        first.sendall(frames.encode(RUN))
        order = control.next_order()
        assert isinstance(order, Order)
        control.say_waiting(7, 2, "no room")
        first.close()
        second, _ = listener.accept()
        hello, waiting = heard_of(second, 2)
        assert (hello["type"], hello["id"], hello["busy"]) == ("hello", b"w" * 16, [7, 2])
        assert (waiting["type"], waiting["message"]) == ("waiting", "no room")
        control.say_waiting(7, 2, "")
        control.ended(order, 4096, True)
        assert [each["type"] for each in heard_of(second, 2)] == ["waiting", "ended"]
        second.close()
        third, _ = listener.accept()
        hello, ended = heard_of(third, 2)
        assert (hello["busy"], ended["type"], ended["offset"]) == ([7, 2], "ended", 4096)
        third.sendall(frames.encode({"type": "noted", "task": 7, "attempt": 2, "answer": "x"}))
        eventually(lambda: control._noted)
        control.idle(True)  # it looks for no other
        third.close()
