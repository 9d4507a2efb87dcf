"""ProgramEnd: waits in a thread, beside the task's own, for the end of a program. In workers."""

from __future__ import annotations

import os
import signal

from taskd.api.interrupt import Yielded
from taskd.api.recorder import Recorder
from taskd.posix import native


class ProgramEnd:
    """A thread that waits for a program's end, without reaping it; ``is_there`` is True then.

    The thread is started before the program: a program whose end cannot be waited for must not
    begin. Raises Yielded if no thread can be started.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._pid: int | None = None
        self._begun, self._over = native.allocate_lock(), native.allocate_lock()
        self._begun.acquire()
        self._over.acquire()
        self.is_there = False
        try:
            native.start_new_thread(self._run, ())
        except RuntimeError as error:
            raise Yielded(f"cannot watch a program yet: {error}") from None

    def watch(self, pid: int | None) -> None:
        """Wait for the end of ``pid``; None: there is no program, and the thread ends."""
        self._pid = pid
        self._begun.release()

    def join(self) -> None:
        """Wait until the thread is over."""
        with self._over:
            pass

    def _run(self) -> None:
        try:
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            self._begun.acquire()
            if self._pid is not None:
                os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOWAIT)
                self.is_there = True
                self._recorder.wake()
        finally:
            self._over.release()
