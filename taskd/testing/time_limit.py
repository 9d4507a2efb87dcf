"""The timeout of a try that ``eager()`` runs: at its next safe point it leaves, and has failed.

Nothing is killed: who reaches no safe point and ends all the same has ended, as within a daemon's
``timeout_grace``.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from taskd.model.duration import in_words
from taskd.worker.memory_recorder import MemoryRecorder


@contextmanager
def time_limit(recorder: MemoryRecorder, seconds: float | None) -> Iterator[None]:
    if seconds is None:
        yield
        return
    why = f"ran for longer than its timeout of {in_words(seconds)}"
    timer = threading.Timer(seconds, recorder.ask, ("timeout", why))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
