"""What passes ends nothing: handlers that fail are called again, and what they wait for is told."""

from __future__ import annotations

import errno
import os
import resource
import socket
from collections.abc import Callable, Iterator

import pytest
from support.waiting import eventually

from taskd.errors import ProtocolError, StoreError
from taskd.master.loop import loop as loop_module
from taskd.master.loop.loop import READ, Look, Loop
from taskd.master.loop.trouble import in_words
from taskd.master.loop.wire import Messages, Wire
from taskd.protocol import frames

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    monkeypatch.setattr(loop_module, "AGAIN", 0.01)
    return Loop()


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def until(loop: Loop, condition: Callable[[], object]) -> None:
    def turn(_: float) -> None:
        loop.soon(lambda: None)
        loop.turn()

    eventually(condition, between=turn)


class Failing:
    """Raises a real EMFILE while ``is_short``, and counts."""

    def __init__(self) -> None:
        self.is_short = True
        self.tries = 0
        self.done = 0

    def __call__(self, *_: object) -> None:
        self.tries += 1
        if self.is_short:
            _run_out_of_descriptors()
        self.done += 1


def _run_out_of_descriptors() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_timer_that_fails_for_want_of_a_descriptor_comes_again(loop: Loop) -> None:
    handler = Failing()
    loop.after(0, handler)
    until(loop, lambda: handler.tries > 2)
    assert loop.troubles.sentences() == [
        f"{loop_module.TRIED_AGAIN}: Too many open files: /dev/null"
    ]
    handler.is_short = False
    until(loop, lambda: handler.done)
    turns = handler.tries
    until(loop, lambda: True)
    assert (handler.done, handler.tries) == (1, turns)


def test_a_timer_that_is_cancelled_while_it_fails_does_not_come_again(loop: Loop) -> None:
    handler = Failing()
    timer = loop.after(0, handler)
    until(loop, lambda: handler.tries)
    timer.cancel()
    later: list[int] = []
    loop.after(0.05, lambda: later.append(1))
    until(loop, lambda: later)
    assert handler.tries == 1


def test_a_ready_descriptor_whose_handler_fails_rests_and_is_served_later(
    loop: Loop, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_module, "AGAIN", 1.0)  # longer than the turns below take
    handler = Failing()
    loop.watch(pair[0].fileno(), READ, handler)
    pair[1].send(b"x")
    loop.turn()
    assert handler.tries == 1
    for _ in range(3):  # ready all the time, and not called at each turn
        loop.soon(lambda: None)
        loop.turn()
    assert handler.tries == 1
    handler.is_short = False
    until(loop, lambda: handler.done)


def test_a_descriptor_that_is_let_go_while_it_rests_is_not_watched_again(
    loop: Loop, pair: Pair
) -> None:
    handler = Failing()
    loop.watch(pair[0].fileno(), READ, handler)
    pair[1].send(b"x")
    loop.turn()
    loop.watch(pair[0].fileno(), 0, handler)
    later: list[int] = []
    loop.after(0.05, lambda: later.append(1))
    until(loop, lambda: later)
    assert handler.tries == 1


def test_what_is_looked_at_is_looked_at_once_however_often_it_is_asked_for(loop: Loop) -> None:
    looks: list[int] = []
    look = Look(loop, "nothing goes on", lambda: looks.append(1))
    for _ in range(3):
        look.ask()
    until(loop, lambda: looks)
    assert looks == [1]


def test_a_look_that_fails_is_repeated_and_says_what_does_not_go_on(loop: Loop) -> None:
    handler = Failing()
    look = Look(loop, "nothing goes on", handler)
    look.ask()
    until(loop, lambda: handler.tries > 1)
    look.ask()
    assert loop.troubles.sentences() == ["nothing goes on: Too many open files: /dev/null"]
    handler.is_short = False
    until(loop, lambda: handler.done)
    assert loop.troubles.sentences() == []


def test_a_mistake_in_a_handler_is_not_taken_for_something_that_passes(loop: Loop) -> None:
    loop.soon(lambda: {}["missing"])  # type: ignore[arg-type, return-value]
    with pytest.raises(KeyError):
        loop.turn()


def test_a_trouble_that_is_told_no_more_is_over(loop: Loop) -> None:
    loop.troubles.tell("it rains", "no sun", lasts=0.05)
    loop.troubles.tell("it rains", "no sun", lasts=0.1)
    assert loop.troubles.sentences() == ["it rains: no sun"]
    until(loop, lambda: not loop.troubles.sentences())


def test_a_message_that_cannot_be_handled_now_is_handled_later_and_in_its_order(
    loop: Loop, pair: Pair
) -> None:
    seen: list[object] = []
    channel = Messages(Wire(loop, pair[0]))
    handler = Failing()

    def on_message(message: dict[str, object]) -> None:
        handler()
        seen.append(message["type"])

    channel.on_message = on_message
    channel.wire.watch()
    messages = [{"type": "pong"}, {"type": "planned", "refused": [], "probe": None}]
    pair[1].send(b"".join(map(frames.encode, messages)))
    until(loop, lambda: handler.tries)
    assert channel.unread == b"".join(map(frames.encode, messages)), "an exec carries both"
    handler.is_short = False
    until(loop, lambda: len(seen) == 2)
    assert seen == ["pong", "planned"]
    assert channel.unread == b""


def test_a_peer_whose_message_turns_out_wrong_at_the_second_try_is_cut_off(
    loop: Loop, pair: Pair
) -> None:
    lost: list[int] = []
    answers = [OSError(errno.EMFILE, "Too many open files"), ProtocolError("that is not it")]

    def on_message(_: dict[str, object]) -> None:
        raise answers.pop(0)

    channel = Messages(Wire(loop, pair[0]))
    channel.on_message = on_message
    channel.wire.on_lost = lambda: lost.append(1)
    channel.wire.watch()
    pair[1].send(frames.encode({"type": "pong"}))
    until(loop, lambda: lost)
    assert channel.wire.is_closed


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/x"), "No space left on device: /x"),
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files"),
        (StoreError("the store is locked"), "the store is locked"),
        (ImportError("no module named x"), "ImportError: no module named x"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_an_error_is_told_in_one_line(error: BaseException, words: str) -> None:
    assert in_words(error) == words
