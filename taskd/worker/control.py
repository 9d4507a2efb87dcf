"""The control thread of a worker, which reads what the master says, and what both threads send it.

The thread reads orders and wishes, sends the latest progress at most ten times a second, and syncs
the slot one second after a record that was not synced (so a power cut costs at most that second).
The main thread passes values under one condition variable and wakes the thread by an eventfd.

When the master is lost while a task runs, the thread connects to the next master and repeats who
the worker is, which attempt it runs, and what the lost master may not have read; a worker without
a task exits.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import Callable
from typing import Any

from taskd.api.interrupt import Interrupted
from taskd.api.recorder import Wish
from taskd.posix import files, native
from taskd.posix.process import Identity
from taskd.protocol import worker as protocol
from taskd.record import Record
from taskd.slot.writer import SlotFull, SlotLost, SlotWriter
from taskd.worker.channel import Channel, MasterSearch, read_once

PROGRESS_EVERY = 0.1
"""Seconds between two progress messages."""

SYNC_WITHIN = 1.0
"""Seconds after which an unsynced record is synced."""


class Order(Record):
    """One attempt to run (the ``run`` message)."""

    task: int
    attempt: int
    name: str
    args: bytes
    saved: bytes | None
    log: str
    scratch: str
    at: float
    version: int | None = None
    log_limit: int | None = None
    failures: int | None = None
    slot: float | None = None


class Questions(Record):
    """The questions of a deploy's plan (the ``plan`` message), in the file at ``path``."""

    path: str


class Control:
    """Shared between the main thread and the control thread; ``_state`` guards every field.

    ``_reporting``, locked before ``_state``, is held while a progress report is taken and sent. The
    task never waits for it (a master that hangs reads nothing); only the report of the attempt's
    end does, which must come after the progress.
    """

    def __init__(
        self, channel: Channel, slot: SlotWriter, address: str = "", orphan_grace: float = 600.0
    ) -> None:
        """``address``: of worker.sock. ``orphan_grace``: seconds that a task runs without a master
        before it is asked to leave."""
        self._channel = channel
        self._slot = slot
        self._search = MasterSearch(address)
        self._grace = orphan_grace
        self._hello: dict[str, Any] = {}
        self._begun = 0.0  # when the current task was taken, by CLOCK_MONOTONIC
        self._is_busy = False  # the main thread runs an attempt, up to its noted end
        self._end: dict[str, Any] | None = None  # sent, and not noted yet
        self._waiting: dict[str, Any] | None = None  # likewise: the disk is full
        self._reporting = native.allocate_lock()
        self._state = native.Condition()
        self._wake = files.out_of_the_way(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC))
        self._wake_file = files.identity(self._wake)
        self._order: Order | Questions | None = None
        self._current: tuple[int, int] | None = None
        self._wish: Wish | None = None
        self._noted = False
        self.is_retired = False
        self._progress: dict[str, Any] | None = None
        self._progress_sent = 0.0
        self._unsynced_since: float | None = None

    # ── the main thread ──────────────────────────────────────────────────────────────────────

    def greet(self, worker: bytes, who: Identity, slot: str, ungrouped: str = "") -> None:
        self._hello = {
            "type": "hello",
            "role": "worker",
            "version": protocol.VERSION,
            "id": worker,
            "pid": who.pid,
            "start": who.start,
            "slot": slot,
            "busy": None,
            "reads_slots": True,
        }
        if ungrouped:
            self._hello["ungrouped"] = ungrouped
        self._channel.send(self._hello)

    def start(self) -> None:
        native.start_new_thread(self._run, ())

    def idle(self, reusable: bool) -> None:
        with self._state:
            self._current = None
            self._wish = None
            self._noted = False
            self._is_busy = False
            self._end = self._waiting = None
        self._channel.send({"type": "idle", "reusable": reusable})

    def next_order(self) -> Order | Questions | None:
        """Wait for a task, or a plan; None: exit (retired, or the master is lost)."""
        with self._state:
            self._state.wait_for(lambda: self._order or self.is_retired or self._channel.lost)
            order, self._order = self._order, None
            if order is None or self._channel.lost:  # not begun: the next master requeues it
                return None
            if isinstance(order, Order):
                self._current = (order.task, order.attempt)
                self._begun = native.monotonic()
                self._is_busy = True
            return order

    def heed_cancel(self) -> None:
        """Raise Interrupted if the attempt is cancelled, also by a message that has arrived and is
        not read yet: a task that was cancelled before it began does not begin."""
        with self._state:
            self._state.wait_for(lambda: self._channel.lost or not self._channel.has_unread())
            wish = self._wish
        if wish is not None and wish.kind == "cancel":
            raise Interrupted(wish.why)

    def ended(self, order: Order, offset: int, reusable: bool) -> None:
        """Tell the master that END is in the slot at ``offset``, and whether this process can run
        another task; send the last progress first."""
        # Not while the thread greets another master, nor while it sends a report.
        with self._reporting, self._state:
            report, self._progress = self._progress, None
            self._end = {
                "type": "ended",
                "task": order.task,
                "attempt": order.attempt,
                "offset": offset,
                "next": reusable,
            }
            if report is not None:
                self._channel.send({"type": "progress", **report})
            self._channel.send(self._end)

    def planned(self, answer: dict[str, Any]) -> None:
        """Send the answer to a plan's questions."""
        self._channel.send({"type": "planned", **answer})

    def wait_until_noted(self) -> bool:
        """Wait until the master has the end in its store; False if the master was lost before."""
        with self._state:
            self._state.wait_for(lambda: self._noted or self._channel.lost)
            return self._noted

    def wish(self) -> Wish | None:
        return self._wish  # one reference, read whole: no lock needed

    def wait_for(self, condition: Callable[[], bool], seconds: float | None = None) -> bool:
        """As ``Recorder.wait_for``."""
        with self._state:
            return self._state.wait_for(condition, timeout=seconds)

    def wake(self) -> None:
        with self._state:
            self._state.notify_all()

    def progress(self, report: dict[str, Any]) -> None:
        with self._state:
            due = self._progress is None
            self._progress = report
        if due:
            self._poke()

    def saved(self, durable: bool) -> None:
        """Have the thread sync the record that was written, unless it is ``durable`` already."""
        with self._state:
            poke = not durable and self._unsynced_since is None
            self._unsynced_since = None if durable else self._unsynced_since or native.monotonic()
        if poke:
            self._poke()

    def say_waiting(self, task: int, attempt: int, message: str) -> None:
        """Tell the master why the attempt waits; an empty ``message``: it goes on."""
        said = {"type": "waiting", "task": task, "attempt": attempt, "message": message}
        with self._state:
            self._waiting = said if message else None
        self._channel.send(said)

    # ── the control thread ───────────────────────────────────────────────────────────────────

    def _poke(self) -> None:
        with contextlib.suppress(OSError):  # closed by user code: the thread ends, or has ended
            os.eventfd_write(self._own_wake(), 1)

    def _own_wake(self) -> int:
        """The eventfd. Raises OSError if user code has closed it, and perhaps reused its number."""
        if files.identity(self._wake) != self._wake_file:
            raise OSError(errno.EBADF, "closed by user code")
        return self._wake

    def _run(self) -> None:
        """The thread. Its end, for example because user code closed its descriptors, counts as the
        loss of the master: the task goes on, and the main thread waits for no answer."""
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            while True:
                self._speak()
                self._find_another()
        finally:
            self._channel.lost = True
            self.wake()

    def _speak(self) -> None:
        poll = native.poll()
        poll.register(self._wake, native.POLLIN)
        poll.register(self._channel, native.POLLIN)
        while not self._channel.lost:
            ready = {fd for fd, _ in poll.poll(self._timeout())}
            if self._wake in ready:
                os.eventfd_read(self._own_wake())
            if self._channel.fileno() in ready:
                with self._state:  # ``heed_cancel``: a message that is no longer unread is obeyed
                    for message in self._channel.receive():
                        self._obey(message)
                    self._state.notify_all()
            self._sync_if_due()
            self._report_if_due()

    def _find_another(self) -> None:
        """The master is lost: wake the main thread, which may wait for it; go on syncing until the
        worker is connected to another master, or the process ends."""
        self.wake()
        poll = native.poll()
        poll.register(self._wake, native.POLLIN)
        search = self._search
        search.lost()
        while self._channel.lost:
            due = [self._timeout(), search.due_in() * 1000 if self._is_busy else None]
            if poll.poll(min((ms for ms in due if ms is not None), default=None)):
                os.eventfd_read(self._own_wake())
            self._sync_if_due()
            if not self._is_busy or search.due_in() > 0:
                continue
            with self._state:  # in one step for the main thread: an end is told once a connection
                if self._is_busy and self._current and search.try_now(self._channel):
                    self._channel.send(self._busy_hello())
                    for said in (self._waiting, self._end):
                        if said is not None:
                            self._channel.send(said)
                if self._channel.lost and search.lasted >= self._grace and self._wish is None:
                    self._wish = Wish("leave", f"no master for {self._grace:.0f} s")
                    self._state.notify_all()

    def _busy_hello(self) -> dict[str, Any]:
        return self._hello | {"busy": list(self._current or ()), "begun": self._begun}

    def _obey(self, message: dict[str, Any]) -> None:
        attempt = (message.get("task"), message.get("attempt"))
        match message.get("type"):
            case "run":
                self._order = _order(message)
                self._current = (self._order.task, self._order.attempt)
            case "plan":
                self._order = Questions(message["path"])
            case "leave" | "cancel" if attempt == self._current:
                kind = "timeout" if message.get("timeout") else message["type"]
                if self._wish is None or kind == "cancel" or self._wish.kind == "leave":
                    self._wish = Wish(kind, message["why"])
            case "noted" if attempt == self._current:
                self._noted = True
            case "retire":
                self.is_retired = True
            case _:
                pass  # about an attempt that is over, or of a newer protocol than this code's

    def _timeout(self) -> float | None:
        """Milliseconds until a sync or a progress report is due; None: neither is waiting."""
        with self._state:
            now = native.monotonic()
            due = []
            if self._unsynced_since is not None:
                due.append(self._unsynced_since + SYNC_WITHIN - now)
            if self._progress is not None and not self._channel.lost:
                due.append(self._progress_sent + PROGRESS_EVERY - now)
        return max(0.0, min(due)) * 1000 if due else None

    def _sync_if_due(self) -> None:
        with self._state:
            since = self._unsynced_since
            if since is None or native.monotonic() < since + SYNC_WITHIN:
                return
            self._unsynced_since = None
        try:
            self._slot.sync()
        except (OSError, SlotFull, SlotLost):
            with self._state:  # the main thread's next save meets it; try again in a second
                self._unsynced_since = native.monotonic()

    def _report_if_due(self) -> None:
        with self._reporting:
            with self._state:
                now = native.monotonic()
                report = self._progress
                if report is None or now < self._progress_sent + PROGRESS_EVERY:
                    return
                self._progress = None
                self._progress_sent = now
            self._channel.send({"type": "progress", **report})


def _order(message: dict[str, Any]) -> Order:
    """The Order of a ``run`` message; large arguments and state come in a file (``load``)."""
    large = read_once(message["load"]) if message.get("load") else message
    return Order(
        task=message["task"],
        attempt=message["attempt"],
        name=message["name"],
        args=large["args"],
        saved=large["saved"],
        log=message["log"],
        scratch=message["scratch"],
        at=message["at"],
        version=message["version"],
        log_limit=message["log_limit"],
        failures=message.get("failures"),
        slot=message.get("slot"),
    )
