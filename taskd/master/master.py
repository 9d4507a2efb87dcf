"""The master: what it owns and how its parts find each other.

One thread runs the loop and changes everything in here; the store's writer thread applies what is
handed to it. ``is_serving`` is False while the master starts, hands over or stops: then nothing
is dispatched. ``is_frozen`` is True from the moment a deploy quiesces.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections import Counter
from collections.abc import Callable

from taskd import log
from taskd.config import Config
from taskd.errors import StoreDamaged, StoreError
from taskd.master.attempts.attempts import Attempts
from taskd.master.attempts.dispatch import Dispatch
from taskd.master.attempts.tasklogs import TaskLogs
from taskd.master.clients.clients import Clients
from taskd.master.clients.streams import Streams
from taskd.master.deploy.after_drain import AfterDrain
from taskd.master.deploy.deploy import Deploy
from taskd.master.deploy.drain_limit import DrainLimit
from taskd.master.fleet.groups import Groups
from taskd.master.fleet.intake import Intake
from taskd.master.fleet.introductions import Doorway
from taskd.master.fleet.orphans import Orphans
from taskd.master.fleet.revisions import Revisions
from taskd.master.fleet.workers import Workers
from taskd.master.loop.ledger import Kind, Ledger
from taskd.master.loop.loop import READ, Loop
from taskd.master.loop.statedir import StateDirectory
from taskd.master.loop.trouble import UNWRITABLE
from taskd.master.recovery.salvage import Salvage
from taskd.master.service.periodic import Rounds
from taskd.master.service.stop import Stop
from taskd.master.service.systemd_status import Standing
from taskd.paths import CONTROL_SOCKET, SUBMIT_SOCKET, WORKER_SOCKET, Places
from taskd.posix import pidfile, tree
from taskd.posix.cleaners import GRACE, Patience
from taskd.store import health
from taskd.store.api import Applied, Operation, Reader
from taskd.store.reader import SqliteReader
from taskd.store.sqlite import SqliteStore
from taskd.store.writer import Writer, launch

STRAYS_AGAIN = 0.5
"""Seconds between two looks at what died and was not ours, while looking fails."""

CLOSE_WITHIN = 10.0
"""Seconds that the store has to close at the daemon's end."""


class Master:
    """Invariant: every descriptor that must cross an exec is in ``ledger``."""

    def __init__(self, config: Config, places: Places) -> None:
        self.config = config
        self.places = places
        self.loop = Loop()
        self.ledger = Ledger()
        self.is_serving = False
        self.is_frozen = False
        self.is_adopting = False  # a new image, before it is decided who serves
        self.not_ours: frozenset[int] = frozenset()  # children that we had before we began
        self.was_swept = False  # what the daemon before us left was ended by its unit's stop
        self._patience = Patience()  # with those that a dead zygote has left
        self._has_orphans = False  # a zygote died: what it kept an eye on may be among our children
        self._committed = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.writer = Writer(lambda: SqliteStore(places.store), self._committed)
        self._looks_again = False  # a look at those is due
        self.helpers: dict[int, Callable[[int], None]] = {}
        self.listeners: dict[str, socket.socket] = {}
        self.given: frozenset[str] = frozenset()  # those that systemd holds, files and modes too
        self.revisions = Revisions(self)
        self.groups = Groups(self)
        self.workers = Workers(self)
        self.doorway = Doorway(self)
        self.orphans = Orphans(self)
        self.intake = Intake(self)
        self.attempts = Attempts(self)
        self.salvage = Salvage(self)
        self.streams = Streams(self)
        self.dispatch = Dispatch(self)
        self.clients = Clients(self)
        self.deploy = Deploy(self)
        self.after_drain = AfterDrain(self)
        self.drain_limit = DrainLimit(self)
        self.tasklogs = TaskLogs(self)
        self.statedir = StateDirectory(self)
        self.rounds = Rounds(self)
        self.stop = Stop(self)
        self.health: health.Check | None = None
        self._damage: StoreError | None = None
        self._note = ""
        self.standing = Standing(self)
        self.loop.troubles.on_change = self.standing.changed
        self.loop.watch(self._committed, READ, lambda _: self._on_committed())

    @property
    def stopping(self) -> bool:
        return self.stop.under_way

    @property
    def note(self) -> str:
        """What happened last, in words, for ``status``."""
        return self._note

    @note.setter
    def note(self, words: str) -> None:
        self._note = words
        self.standing.changed()

    def status_line(self) -> str:
        """One line for systemd's status."""
        if self.stopping:
            return self.stop.in_words()
        current = self.revisions.current
        name = current.name if current else "starting"
        running = self.attempts.all()
        workers = [self.attempts.worker_of(each.task) for each in running]
        others = Counter(w.revision.name for w in workers if w and w.revision is not current)
        older = "".join(f", {count} on {other}" for other, count in sorted(others.items()))
        parts = [name, f"{len(running)} running{older}", self.note]
        return "; ".join(filter(None, [*parts, *self.loop.troubles.sentences()]))

    # ── the store ────────────────────────────────────────────────────────────────────────────

    def open_store(self) -> None:
        """Raises StoreError. Nothing before this touches the store."""
        self.writer.start()
        self.reader: Reader = SqliteReader(self.places.store)
        self.statedir.opened()

    def write(self, operation: Operation, done: Callable[[Applied | StoreError], None]) -> None:
        """Apply ``operation``; ``done`` is called in the loop once it is on disk (or refused)."""
        assert not self.is_adopting, "nothing is written before it is decided who serves"

        def applied(outcome: Applied | StoreError) -> None:
            self._judge_store(outcome)
            done(outcome)
            if isinstance(outcome, Applied):
                self.streams.on_applied(outcome)

        self.writer.submit(operation, applied)

    def _judge_store(self, outcome: Applied | StoreError) -> None:
        if isinstance(outcome, StoreDamaged):
            self._damage = outcome
        if isinstance(outcome, StoreError):
            self.loop.troubles.tell(UNWRITABLE, outcome)
        elif self.damage is None:
            self.loop.troubles.over(UNWRITABLE)

    @property
    def damage(self) -> StoreError | None:
        """The store's file is damaged, or was taken away: nothing new is accepted or started on
        it. What runs goes on, and its end is recorded, if it can be; else it stays in its slot."""
        found = None if self.health is None else self.health.damage
        return self._damage or found or self.reader.damage or self.statedir.lost

    def check_store(self) -> None:
        """Look at all of it, in a thread of its own; ``damage`` is what it finds."""
        self.health = health.Check(self.places.store, self._committed)
        launch(self.health.run, "store-check")

    def _on_committed(self) -> None:
        self.writer.completions()

    # ── listeners ────────────────────────────────────────────────────────────────────────────

    def adopt_listener(self, name: str, listener: socket.socket) -> None:
        self.listeners[name] = listener
        self.ledger.add(listener.fileno(), Kind.LISTENER, name)

    def hear(self) -> None:
        """Accept connections from now on: workers' first, since clients wait for them."""
        watched = {
            WORKER_SOCKET: self.doorway.accept,
            CONTROL_SOCKET: self.clients.accept_control,
            SUBMIT_SOCKET: self.clients.accept_submit,
        }
        for name, accept in watched.items():
            self._listen(self.listeners[name], accept)

    def _listen(self, listener: socket.socket, accept: Callable[[socket.socket], None]) -> None:
        """Out of descriptors, connections are left in the backlog for a while (see ``loop``)."""
        self.loop.watch(listener.fileno(), READ, lambda _: accept(listener))

    # ── processes and signals ────────────────────────────────────────────────────────────────

    def catch_signals(self) -> None:
        self.loop.on_signal(signal.SIGCHLD, self.reap)
        self.loop.on_signal(signal.SIGHUP, self.deploy.wish)
        self.loop.on_signal(signal.SIGTERM, self.stop.on_signal)
        self.loop.on_signal(signal.SIGINT, self.stop.on_signal)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)

    def reap(self) -> None:
        """Look at every child that may have died."""
        assert not self.is_adopting, "nobody is reaped before it is decided who serves"
        for pid in list(self.helpers):
            dead, status = os.waitpid(pid, os.WNOHANG)
            if dead:
                self.helpers.pop(pid)(status)
                self.deploy.on_fork_answered()
        for revision in list(self.revisions):
            if revision.pid is not None and not revision.is_foreign:
                with contextlib.suppress(ChildProcessError):
                    dead, status = os.waitpid(revision.pid, os.WNOHANG)
                    if dead:
                        self.doorway.hear_last_words(dead, self.listeners[WORKER_SOCKET])
                        self._has_orphans, self._patience = True, Patience()
                        self.revisions.on_death(revision, status)
        self.workers.reap_ours()
        self._reap_strays()
        self.stop.on_change()

    def _reap_strays(self) -> None:
        """Whatever became our child without being a worker: reaped; killed if a zygote has died,
        which kept its workers' leftovers (and the app's own processes) until then."""
        known = self.kept_children()
        try:
            if self._has_orphans:
                self._has_orphans = tree.strike(known, self._patience)
                self._look_again_for_helpers()
                return
            found = tree.children()
        except OSError as error:  # out of descriptors: the zombies can wait
            log.warning("cannot look for strays", why=error.strerror)
            self.loop.after(STRAYS_AGAIN, self.reap)
            return
        for pid in found:
            if pid not in known:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)

    def _look_again_for_helpers(self) -> None:
        """Who did not end by itself in its time is killed then: no SIGCHLD asks for it."""
        if self._has_orphans and not self._looks_again:
            self._looks_again = True
            self.loop.after(GRACE, self._look_now)

    def _look_now(self) -> None:
        self._looks_again = False
        self.reap()

    def kept_children(self) -> set[int]:
        """Children that are no leftovers: workers, zygotes, helpers, and those from before us."""
        pids = {w.pid for w in self.workers} | {r.pid for r in self.revisions if r.pid is not None}
        return pids | self.not_ours | self.helpers.keys()

    def kill(self, pid: int | None) -> None:
        if pid is not None and not self.orphans.kill(pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    # ── serving ──────────────────────────────────────────────────────────────────────────────

    def serve(self) -> None:
        """Everything is in place: read, accept, reap, dispatch."""
        self.is_serving = True
        self.is_frozen = False
        self.standing.begin()
        self.clients.open_sockets()
        self.hear()
        self.reap()
        self.dispatch.wake_due()
        self.dispatch.kick()
        self.streams.on_everything()
        self.drain_limit.look()
        self.rounds.begin()

    def end(self) -> None:
        """``close``, as the last thing that this process does. A signal that asks for something
        comes too late: it must not end us in its own way, with another exit status, once the
        interpreter takes its handlers back."""
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        self.close()

    def close(self) -> None:
        """The daemon ends: the sockets go, so that clients know at once (those that systemd holds
        stay, and clients wait for the next daemon); the store is closed.

        Zygotes go too, but for those whose workers are kept for the next master.
        """
        for revision in self.revisions:
            if not (self.stop.keeps and self.workers.any_of(revision)):
                self.kill(revision.pid)
        for name, listener in self.listeners.items():
            listener.close()
            if name not in self.given:
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(self.places.runtime, name))
        self.reader.close()
        self.writer.stop(CLOSE_WITHIN)
        if (path := pidfile.wanted()) is not None:
            pidfile.remove(path)
