"""How a worker begins: with the signal handlers that a Python program expects."""

from __future__ import annotations

import os
import signal
import socket

from forked import in_child

from taskd.worker import process as worker


def test_a_write_to_a_connection_that_is_gone_is_an_error_and_not_a_death() -> None:
    """A worker that reports to a dead master, and any library that a task uses, rely on it."""

    def under_test() -> str:
        worker._fresh_start()
        ours, theirs = socket.socketpair()
        theirs.close()
        try:
            ours.sendall(b"progress")
        except BrokenPipeError:
            return "told"
        return "sent"

    assert in_child(under_test) == "told"


def test_a_file_that_grows_past_its_limit_is_an_error_and_not_a_death() -> None:
    def under_test() -> bool:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        worker._fresh_start()
        return signal.getsignal(signal.SIGXFSZ) is signal.SIG_IGN

    assert in_child(under_test)


def test_a_worker_has_no_handler_and_no_blocked_signal_of_its_zygote() -> None:
    def under_test() -> tuple[object, object, set[int]]:
        signal.signal(signal.SIGTERM, lambda *_: None)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        worker._fresh_start()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        return signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGUSR1), set(mask)

    assert in_child(under_test) == (signal.SIG_DFL, signal.SIG_DFL, set())


def test_an_interrupt_from_outside_is_a_death_and_not_the_tasks_doing() -> None:
    """As SIGTERM: the task is continued. An exception in the task would be its failure."""

    def under_test() -> int:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        child = os.fork()
        if child == 0:
            worker._fresh_start()
            os.kill(os.getpid(), signal.SIGINT)
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    assert in_child(under_test) == -signal.SIGINT
