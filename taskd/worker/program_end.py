"""Waiting, beside the task's thread, for the end of a program that it has started. In workers."""

from __future__ import annotations

import os
import signal

from taskd.api.interrupt import Yielded
from taskd.api.recorder import Recorder
from taskd.posix import native


class Watch:
    """A thread that waits for the program's end, without reaping it. It is there before the program
    is: a program that nobody can wait for must not begin. Raises Yielded."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._pid: int | None = None
        self._begun, self._over = native.allocate_lock(), native.allocate_lock()
        self._begun.acquire()
        self._over.acquire()
        self.ended = False
        try:
            native.start_new_thread(self._run, ())
        except RuntimeError as error:
            raise Yielded(f"cannot watch a program yet: {error}") from None

    def begin(self, pid: int) -> None:
        self._pid = pid
        self._begun.release()

    def let_go(self) -> None:
        """There is no program."""
        self._begun.release()
        self.join()

    def join(self) -> None:
        with self._over:
            pass

    def _run(self) -> None:
        try:
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            self._begun.acquire()
            if self._pid is not None:
                os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOWAIT)
                self.ended = True
                self._recorder.wake()
        finally:
            self._over.release()
