"""The writer thread: many operations, one transaction, one sync (group commit).

Runs in the master: the loop's thread submits operations and runs their callbacks; one thread of
this class owns the store. Operations that gather while a commit is under way go into the next one,
so that there are fewer syncs for each operation as the load grows, and a lone operation never
waits.

Invariants:
* Operations are applied, and their callbacks run, in the order in which they were submitted.
* A callback runs in the loop's thread, after the commit, exactly once: with the Applied of its
  operation, or with the StoreError of its whole batch.
* A batch of which the store does not know whether it was committed (StoreUnknown) stays in hand:
  the thread asks the store what came of it, or applies it again, until it is known. ``doubt`` says
  so; no later operation is applied before. A ``stop`` leaves the batch to the next ``start``.
* All signals are blocked in the thread: the loop's thread gets them, also across an exec. The
  thread waits on a condition; it never polls.
* Another exception than StoreError from the store is a bug: the thread ends, and ``completions``
  raises WriterEnded in the loop. No later operation is applied or acknowledged.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Sequence

from taskd import errors
from taskd.store.api import (
    Applied,
    Operation,
    Settle,
    Store,
    Submit,
    SubmitAll,
)

BATCH = 1000
"""Tasks touched by one transaction at most (a larger SubmitAll goes alone)."""

_AGAIN = 0.5
"""Seconds from one question to the next, while the store does not say what came of a batch."""

_HEAVY = 64 * 1024
"""Bytes that weigh as much as one more task, so that one commit stays under some 64 MiB."""

Callback = Callable[[Applied | errors.StoreError], None]
_Work = tuple[Operation, Callback]


class Chore:
    """Something else that the store is to do, behind the operations so far. An error is of no
    consequence: it is asked for again."""

    __slots__ = ("done", "run")

    def __init__(self, run: Callable[[Store], None], done: Callable[[], None]) -> None:
        """``done``: called in the loop's thread, once it is over or has failed."""
        self.run = run
        self.done = done


class WriterEnded(Exception):
    """A bug ended the writer thread. A caller might take the bug's own exception for a transient
    error, so that is the cause of this one."""


class Writer:
    """``store_factory`` opens the store, in the writer thread; ``notify_fd`` is an eventfd.

    The caller waits for ``notify_fd`` to be readable and calls ``completions``. The caller keeps
    and closes that descriptor; it is made non-blocking here. ``start`` works again after
    ``stop``. All methods are for the loop's thread.
    """

    def __init__(self, store_factory: Callable[[], Store], notify_fd: int) -> None:
        self._store_factory = store_factory
        self._notify_fd = notify_fd
        self._thread: threading.Thread | None = None
        self.pending = 0
        """Operations submitted whose callback has not run yet."""
        self.finished = 0
        """Batches and chores carried out or failed, as the thread counts: its progress."""
        self.doubt: errors.Error | None = None
        """Why it is not known just now what came of the batch in hand."""
        self._done: deque[tuple[Callback, Applied | errors.StoreError]] = deque()
        self._chores_done: deque[Chore] = deque()
        # Below: shared with the thread. A change is made with this condition held, and notified.
        self._changed = threading.Condition()
        self._queue: deque[_Work | Chore] = deque()
        self._batch: list[_Work] | Chore | None = None  # in hand
        self._number = 0  # that of the batch in hand
        self._stopping = False
        self._opened = False
        self._over = True  # no thread, or one that will take nothing more
        self._failure: BaseException | None = None
        os.set_blocking(notify_fd, False)

    def start(self) -> None:
        """Open the store and apply the operations that wait. Raises StoreError if it cannot open.

        Undoes a ``stop`` that timed out; does nothing if the thread runs.
        """
        with self._changed:
            if not self._over:
                self._stopping = False
                return
        self._join(None)
        self._stopping = self._opened = self._over = False
        if self.doubt is None:
            self._batch = None
        self._failure = None
        self._thread = launch(self._run, "store-writer")
        with self._changed:
            self._changed.wait_for(lambda: self._opened or self._over)
            if not self._opened and self._failure is not None:
                failure, self._failure = self._failure, None
                raise failure

    def submit(self, operation: Operation, callback: Callback) -> None:
        """Have ``operation`` applied after those submitted before. Never waits for the disk."""
        self.submit_together([(operation, callback)])

    def submit_together(self, works: Sequence[tuple[Operation, Callback]]) -> None:
        """As ``submit``, for several that are applied in one batch (a large one may be split)."""
        self.pending += len(works)
        with self._changed:
            self._queue.extend(works)
            self._changed.notify_all()

    def checkpoint(self) -> None:
        """Have a checkpoint made after the operations so far; ``flush`` waits for it too."""
        self._have_done(Chore(lambda store: store.checkpoint(), lambda: None))

    def shrink(self, size: int, done: Callable[[], None]) -> None:
        """Have the store give so many bytes back; ``done`` is called after that, as a callback."""
        self._have_done(Chore(lambda store: store.shrink(size), done))

    def compact(self, done: Callable[[], None]) -> None:
        """As ``shrink``: have the store written anew."""
        self._have_done(Chore(lambda store: store.compact(), done))

    def at_work(self) -> None:
        """The store goes on with what takes long: that is progress, too. Called in the thread."""
        self.finished += 1

    def _have_done(self, chore: Chore) -> None:
        with self._changed:
            self._queue.append(chore)
            self._changed.notify_all()

    def completions(self) -> int:
        """Run the callbacks of the operations that are done, in order; returns how many. For the
        loop, when ``notify_fd`` is readable.

        Raises what a callback raises (the next call runs the rest); WriterEnded.
        """
        with contextlib.suppress(BlockingIOError):  # no notice, or two notices for one drain
            os.eventfd_read(self._notify_fd)
        for _ in range(len(self._chores_done)):
            self._chores_done.popleft().done()
        count = 0
        try:
            for _ in range(len(self._done)):
                callback, outcome = self._done.popleft()
                count += 1
                self.pending -= 1
                callback(outcome)
        finally:
            if self._done:
                os.eventfd_write(self._notify_fd, 1)
        if self._failure is not None:
            raise WriterEnded(f"the store's writer thread ended: {self._failure!r}") from (
                self._failure
            )
        return count

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits for the disk, at this moment. Does not wait for the thread."""
        return not self._queue and self._batch is None

    def flush(self, timeout: float) -> bool:
        """Wait until all submitted operations are applied (``completions`` runs their callbacks).

        False after ``timeout`` seconds, or if no thread runs.
        """
        with self._changed:
            self._changed.wait_for(lambda: self.is_idle or self._over, timeout)
            return self.is_idle

    def stop(self, timeout: float) -> bool:
        """Flush, close the store and end the thread; True if that was done.

        False after ``timeout`` seconds: the thread goes on and still stops later, unless ``start``
        is called. False also if a batch is in doubt, and one more try has not changed that: it and
        what comes after it wait for ``start``. An operation submitted from now on may have to wait
        for ``start``.
        """
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        return self._join(timeout) and self._failure is None and self.doubt is None

    def _join(self, timeout: float | None) -> bool:
        if self._thread is None:
            return True
        self._thread.join(timeout)
        if self._thread.is_alive():
            return False
        self._thread = None
        return True

    # In the thread.

    def _run(self) -> None:
        try:
            store = self._store_factory()
            try:
                if self.doubt is None:
                    self._number = store.last() + 1
                with self._changed:
                    self._opened = True
                    self._changed.notify_all()
                while self._step(store):
                    self.finished += 1
            finally:
                store.close()
        except BaseException as error:  # the thread's boundary: the loop raises it again
            with self._changed:
                self._failure = error
                self._over = True
                self._changed.notify_all()
            os.eventfd_write(self._notify_fd, 1)

    def _step(self, store: Store) -> bool:
        """Wait for the next batch and apply it, or try again what is in doubt; False: stop. In a
        frame of its own, so that the batch is freed before the thread waits for the next."""
        with self._changed:
            if self.doubt is None:
                self._batch = None
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._queue or self._stopping)
                if not self._queue:
                    self._over = True
                    return False
                self._batch = _next_batch(self._queue)
            batch, is_stopping = self._batch, self._stopping
        assert batch is not None
        if isinstance(batch, Chore):
            with contextlib.suppress(errors.StoreError):
                batch.run(store)
            self._chores_done.append(batch)
            os.eventfd_write(self._notify_fd, 1)
            return True
        was_in_doubt = self.doubt is not None
        outcomes = self._outcomes(store, [operation for operation, _ in batch])
        for (_, callback), outcome in zip(batch, outcomes or (), strict=outcomes is not None):
            self._done.append((callback, outcome))
        if self.doubt is not None and not was_in_doubt:
            return True  # it is asked at once, before the loop hears of it
        os.eventfd_write(self._notify_fd, 1)
        if self.doubt is None:
            return True
        with self._changed:
            if is_stopping and self._stopping:
                self._over = True
                self._changed.notify_all()
                return False
            self._changed.wait_for(lambda: self._stopping, _AGAIN)
        return True

    def _outcomes(
        self, store: Store, operations: Sequence[Operation]
    ) -> Sequence[Applied | errors.StoreError] | None:
        """What came of the batch in hand; None: ``doubt`` says why that is not known."""
        outcomes: Sequence[Applied | errors.StoreError] | None = None
        try:
            if self.doubt is not None:
                outcomes = store.outcome(self._number)
        except errors.StoreError as error:
            self.doubt = error
            return None
        try:
            if outcomes is None:
                outcomes = store.apply(self._number, operations)
            self._number += 1
        except errors.StoreUnknown as unknown:
            self.doubt = unknown
            return None
        except errors.StoreError as error:
            outcomes = [error] * len(operations)
        self.doubt = None
        return outcomes


def launch(run: Callable[[], None], name: str) -> threading.Thread:
    """Start a thread that has all signals blocked from its first instruction: it inherits the mask.

    It is a daemon thread: if the master ends without ``stop``, the store survives as after a kill,
    and the master's end must not wait for the disk.
    """
    thread = threading.Thread(target=run, name=name, daemon=True)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        thread.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return thread


def _next_batch(queue: deque[_Work | Chore]) -> list[_Work] | Chore:
    """Take a batch, or a chore, out of ``queue``, which holds something."""
    if isinstance(first := queue[0], Chore):
        queue.popleft()
        return first
    batch: list[_Work] = []
    room = BATCH
    while queue and not isinstance(work := queue[0], Chore):
        room -= _weight(work[0])
        if room < 0 and batch:
            return batch
        batch.append(work)
        queue.popleft()
    return batch


def _weight(operation: Operation) -> int:
    if isinstance(operation, SubmitAll):
        return sum(map(_weight, operation.tasks))
    if isinstance(operation, Submit):
        return 1 + len(operation.args) // _HEAVY
    if isinstance(operation, Settle):
        return 1 + (len(operation.saved or b"") + len(operation.result or b"")) // _HEAVY
    return 1
