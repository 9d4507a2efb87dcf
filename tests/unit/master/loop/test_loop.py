"""The master's one wait point: descriptors, timers and signals, one handler after another."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from descriptors import descriptors
from forked import in_child

from taskd.master.loop import loop as loop_module
from taskd.master.loop.loop import READ, WRITE, Loop


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


Pair = tuple[socket.socket, socket.socket]


def turn(loop: Loop) -> None:
    """One round that waits for nothing."""
    loop.soon(lambda: None)
    loop.turn()


def test_a_ready_descriptor_calls_its_handler_with_what_it_is_ready_for(
    loop: Loop, pair: Pair
) -> None:
    seen: list[int] = []
    loop.watch(pair[0].fileno(), READ | WRITE, seen.append)
    turn(loop)
    pair[1].send(b"x")
    turn(loop)
    assert seen == [WRITE, READ | WRITE]


def test_what_is_watched_can_be_changed_and_ended_at_any_time(loop: Loop, pair: Pair) -> None:
    fd = pair[0].fileno()
    seen: list[str] = []
    loop.watch(fd, WRITE, lambda _: seen.append("first"))
    turn(loop)
    loop.watch(fd, WRITE, lambda _: seen.append("second"))
    turn(loop)
    loop.watch(fd, 0, lambda _: None)
    loop.watch(fd, 0, lambda _: None)
    turn(loop)
    assert seen == ["first", "second"]


def test_a_handler_that_ends_another_of_the_same_round_keeps_it_from_being_called(
    loop: Loop, pair: Pair
) -> None:
    seen: list[int] = []
    fds = [sock.fileno() for sock in pair]

    def end_the_other(index: int) -> None:
        seen.append(index)
        loop.watch(fds[1 - index], 0, lambda _: None)

    for index, fd in enumerate(fds):
        loop.watch(fd, WRITE, lambda _, index=index: end_the_other(index))  # type: ignore[misc]
    turn(loop)
    assert len(seen) == 1


def test_a_number_that_is_used_again_in_the_same_round_is_another_descriptor(
    loop: Loop, pair: Pair
) -> None:
    seen: list[str] = []
    fds = [sock.fileno() for sock in pair]

    def replace_the_other(index: int) -> None:
        other = fds[1 - index]
        loop.watch(other, 0, lambda _: None)
        loop.watch(other, READ, lambda _: seen.append("new"))
        seen.append("replaced")

    for index, fd in enumerate(fds):
        loop.watch(fd, WRITE, lambda _, index=index: replace_the_other(index))  # type: ignore[misc]
    turn(loop)
    assert seen == ["replaced"], "the new one is not ready to be read"


def test_timers_run_in_the_order_of_their_times(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    now = time.monotonic()
    with monkeypatch.context() as at_one_moment:
        at_one_moment.setattr(loop_module, "time", SimpleNamespace(monotonic=lambda: now))
        for number in (3, 1, 2):
            loop.after(number / 1000, lambda number=number: seen.append(number))  # type: ignore[misc]
    while len(seen) < 3:
        loop.turn()
    assert seen == [1, 2, 3]


def test_a_timer_never_runs_before_its_time(loop: Loop) -> None:
    ran: list[float] = []
    due = time.monotonic() + 0.02
    loop.after(0.02, lambda: ran.append(time.monotonic()))
    while not ran:
        loop.turn()
    assert ran[0] >= due


def test_a_cancelled_timer_does_not_run_and_may_be_cancelled_again(loop: Loop) -> None:
    seen: list[str] = []
    timer = loop.after(0, lambda: seen.append("cancelled"))
    loop.after(0.001, lambda: seen.append("kept"))
    timer.cancel()
    timer.cancel()
    while not seen:
        loop.turn()
    assert seen == ["kept"]
    timer.cancel()


def test_a_timer_may_cancel_one_of_the_same_moment(loop: Loop) -> None:
    seen: list[str] = []
    first = loop.after(0, lambda: (seen.append("first"), second.cancel()))  # type: ignore[func-returns-value]
    second = loop.after(0, lambda: seen.append("second"))
    time_passes = loop.after(0.002, loop.stop)
    loop.run()
    assert seen == ["first"]
    assert first is not second
    assert time_passes.action is not None


def test_what_is_asked_for_soon_runs_in_order_and_lets_descriptors_have_their_turn(
    loop: Loop, pair: Pair
) -> None:
    seen: list[str] = []

    def again() -> None:
        seen.append("soon")
        if len(seen) < 50:
            loop.soon(again)

    loop.soon(again)
    loop.watch(pair[0].fileno(), WRITE, lambda _: (seen.append("fd"), loop.stop()))  # type: ignore[func-returns-value]
    loop.run()
    assert "fd" in seen[:5]


def test_a_signal_calls_its_action_in_the_loop_once_for_several() -> None:
    def under_test() -> list[str]:
        loop, seen = Loop(), list[str]()
        loop.on_signal(signal.SIGUSR1, lambda: seen.append("usr1"))
        loop.on_signal(signal.SIGHUP, lambda: seen.append("hup"))
        for number in (signal.SIGUSR1, signal.SIGUSR1, signal.SIGHUP):
            os.kill(os.getpid(), number)
        assert seen == [], "nothing runs inside the signal handler"
        turn(loop)
        turn(loop)
        return sorted(seen)

    assert in_child(under_test) == ["hup", "usr1"]


def test_a_signal_wakes_a_loop_that_waits_for_ever() -> None:
    def under_test() -> bool:
        loop = Loop()
        loop.on_signal(signal.SIGALRM, loop.stop)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        loop.run()
        return True

    assert in_child(under_test)


def test_signals_that_were_caught_are_taken_out_and_not_acted_on() -> None:
    """They are nowhere else: an exec would lose them."""

    def under_test() -> tuple[set[int], set[int], list[str]]:
        loop, seen = Loop(), list[str]()
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
            loop.on_signal(number, lambda: seen.append("acted on"))
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGHUP)
        caught = loop.caught_signals()
        turn(loop)
        return caught, loop.caught_signals(), seen

    assert in_child(under_test) == ({signal.SIGTERM, signal.SIGHUP}, set(), [])


def test_more_signals_than_the_pipe_holds_block_nothing() -> None:
    def under_test() -> set[int]:
        loop = Loop()
        loop.on_signal(signal.SIGUSR1, lambda: None)
        for _ in range(70_000):
            signal.raise_signal(signal.SIGUSR1)
        return loop.caught_signals()

    assert in_child(under_test) == {signal.SIGUSR1}


def test_its_own_descriptors_are_not_for_children() -> None:
    before = descriptors()
    other = Loop()
    made = descriptors() - before
    assert len(made) == 3, "the selector's and both ends of the wakeup pipe"
    assert not [fd for fd in made if os.get_inheritable(fd)]
    del other
