"""One connection of the master: nothing is lost on it, in or out, and its end is told once."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.waiting import eventually

from taskd.errors import ProtocolError
from taskd.master.loop.loop import Loop
from taskd.master.loop.wire import OUT_BOUND, Messages, Wire
from taskd.protocol import frames

PING = {"type": "pong"}


class Ends:
    """A wire, its peer, and what was told."""

    def __init__(self, unsent: bytes = b"") -> None:
        self.loop = Loop()
        ours, self.peer = socket.socketpair()
        self.peer.setblocking(False)
        self.wire = Wire(self.loop, ours, unsent)
        self.data = b""
        self.told: list[str] = []
        self.wire.on_data = self._on_data
        self.wire.on_lost = lambda: self.told.append("lost")
        self.wire.on_drained = lambda: self.told.append("drained")

    def _on_data(self, data: bytes) -> None:
        self.data += data

    def turn(self) -> None:
        self.loop.soon(lambda: None)
        self.loop.turn()

    def read(self, size: int = 1 << 16) -> bytes:
        try:
            return self.peer.recv(size)
        except BlockingIOError:
            return b""

    def until(self, condition: Callable[[], Any]) -> None:
        eventually(condition, between=lambda _: self.turn())


@pytest.fixture
def ends() -> Iterator[Ends]:
    made = Ends()
    made.wire.watch()
    yield made
    made.wire.close()
    made.peer.close()


def test_bytes_are_told_as_they_come(ends: Ends) -> None:
    for part in (b"one", b"two"):
        ends.peer.send(part)
        ends.turn()
    assert ends.data == b"onetwo"


def test_a_slow_reader_gets_everything_in_order(ends: Ends) -> None:
    sent = os.urandom(3_000_000)
    for start in range(0, len(sent), 70_000):
        ends.wire.send(sent[start : start + 70_000])
    assert ends.wire.unsent, "more than the socket takes at once"
    got = b""
    while len(got) < len(sent):
        got += ends.read(10_000)
        ends.turn()
    assert got == sent
    assert not ends.wire.unsent
    assert ends.told == ["drained"]


def test_unsent_bytes_are_carried_to_the_next_image(ends: Ends) -> None:
    sent = os.urandom(1_000_000)
    ends.wire.send(sent)
    unsent = ends.wire.unsent
    in_the_socket = sent[: len(sent) - len(unsent)]
    assert sent == in_the_socket + unsent

    next_one = Ends(unsent)
    next_one.wire.watch()
    got = b""
    while len(got) < len(unsent):
        got += next_one.read()
        next_one.turn()
    assert got == unsent
    assert next_one.told == ["drained"], "a stream that was paused goes on"
    next_one.wire.close()
    next_one.peer.close()


def test_what_was_carried_goes_before_what_is_sent_later() -> None:
    made = Ends(b"carried ")
    made.wire.send(b"later")
    made.wire.watch()
    made.until(lambda: not made.wire.unsent)
    assert made.read() == b"carried later"
    made.wire.close()
    made.peer.close()


def test_it_is_full_above_the_bound_and_not_at_it() -> None:
    for size, full in ((OUT_BOUND, False), (OUT_BOUND + 1, True)):
        made = Ends(bytes(size))
        assert made.wire.is_full is full
        made.wire.close()
        made.peer.close()


def test_a_paused_wire_reads_nothing_and_sends_on(ends: Ends) -> None:
    ends.wire.pause(True)
    ends.peer.send(b"waits")
    ends.wire.send(b"x" * 1_000_000)
    got = b""
    while ends.wire.unsent:
        got += ends.read()
        ends.turn()
    assert (len(got + ends.read()), ends.data) == (1_000_000, b"")
    ends.wire.pause(False)
    ends.until(lambda: ends.data == b"waits")


def test_the_peers_end_is_told_once(ends: Ends) -> None:
    ends.peer.close()
    ends.wire.send(b"x")
    ends.wire.send(b"y")
    ends.turn()
    ends.turn()
    assert ends.told == ["lost"]
    assert ends.wire.is_closed


def test_a_send_to_a_peer_that_is_gone_does_not_tell_from_inside_the_send(ends: Ends) -> None:
    ends.peer.close()
    ends.wire.send(b"x")
    assert ends.told == []
    ends.turn()
    assert ends.told == ["lost"]


def test_what_the_peer_sent_before_it_went_is_still_told(ends: Ends) -> None:
    ends.peer.send(b"last words")
    ends.peer.close()
    ends.until(lambda: ends.told)
    assert (ends.data, ends.told) == (b"last words", ["lost"])


def test_closing_tells_nobody_and_may_be_repeated(ends: Ends) -> None:
    ends.wire.close()
    ends.wire.close()
    ends.wire.send(b"dropped")
    ends.wire.pause(True)
    ends.turn()
    assert ends.told == []
    assert ends.wire.is_closed


def test_a_peer_that_breaks_the_protocol_is_lost(ends: Ends) -> None:
    def refuse(_: bytes) -> None:
        raise ProtocolError("nonsense")

    ends.wire.on_data = refuse
    ends.peer.send(b"x")
    ends.turn()
    assert ends.told == ["lost"]


def test_draining_takes_everything_to_the_end_of_the_stream(ends: Ends) -> None:
    sent = os.urandom(120_000)
    assert ends.peer.send(sent) == len(sent)
    ends.peer.close()
    ends.wire.drain()
    assert (ends.data, ends.told) == (sent, ["lost"])
    ends.wire.drain()
    assert ends.told == ["lost"]


def test_draining_ends_although_a_child_holds_the_other_end_open(ends: Ends) -> None:
    ends.peer.send(b"last words")
    held = ends.peer.dup()
    ends.wire.drain()
    assert (ends.data, ends.told) == (b"last words", ["lost"])
    held.close()


def test_draining_a_peer_that_broke_the_protocol_ends_too(ends: Ends) -> None:
    def refuse(_: bytes) -> None:
        raise ProtocolError("nonsense")

    ends.wire.on_data = refuse
    ends.peer.send(b"x")
    ends.wire.drain()
    assert ends.told == ["lost"]


def messages(ends: Ends, unread: bytes = b"") -> tuple[Messages, list[dict[str, object]]]:
    channel, heard = Messages(ends.wire, unread), list[dict[str, object]]()
    channel.on_message = heard.append
    return channel, heard


def test_messages_come_whole_however_the_bytes_are_cut(ends: Ends) -> None:
    channel, heard = messages(ends)
    raw = frames.encode(PING) * 3
    for byte in raw:
        ends.peer.send(bytes([byte]))
        ends.turn()
    assert heard == [PING] * 3
    assert channel.unread == b""


def test_half_a_message_is_carried_to_the_next_image(ends: Ends) -> None:
    channel, heard = messages(ends)
    raw = frames.encode(PING)
    ends.peer.send(raw + raw[:3])
    ends.turn()
    assert (heard, channel.unread) == ([PING], raw[:3])

    next_one = Ends()
    carried, heard = messages(next_one, channel.unread)
    next_one.wire.watch()
    carried.pump()
    next_one.peer.send(raw[3:])
    next_one.turn()
    assert heard == [PING]
    next_one.wire.close()
    next_one.peer.close()


def test_a_handler_that_closes_hears_no_more(ends: Ends) -> None:
    channel, heard = messages(ends)

    def once(message: dict[str, object]) -> None:
        heard.append(message)
        ends.wire.close()

    channel.on_message = once
    ends.peer.send(frames.encode(PING) * 2)
    ends.turn()
    assert heard == [PING]
