"""The revisions the master knows, and their zygotes: started, heard, pinged, retired.

A zygote is spawned (never forked), connects to worker.sock and proves who it is: the random id we
gave it, from the pid that we started. If a zygote dies, its workers go on as the master's own
children and a new zygote is started when one is needed again.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from taskd import log
from taskd.config import App
from taskd.errors import DeployRefused, Error
from taskd.master.fleet import retirement
from taskd.master.fleet.recheck import Expected, Recheck
from taskd.master.fleet.respawn import Respawn
from taskd.master.fleet.revision import Proof, Revision, early_end
from taskd.master.loop.deadline import Deadline
from taskd.master.loop.ledger import Kind
from taskd.master.loop.loop import Look
from taskd.master.loop.wire import Messages
from taskd.model.endings import death_in_words
from taskd.model.revision import LIVE, RevisionEvent, RevisionState
from taskd.posix import process, spawn, title
from taskd.protocol import boot
from taskd.revision import confirmed, naming, record, rejected, release
from taskd.revision.rejected import Rejected

if TYPE_CHECKING:
    from taskd.master.master import Master

DEAF_WITHIN = 3.0
"""Seconds that a zygote which lives on without its connection has to come back on another one."""

LONGEST_WARNING = 1000
"""Characters of a warning of a release's proof that are told."""

OWN_END = 20.0
"""Times its deadline after which an app that still imports is ended by the kernel's timer. That
one knows the clock alone, and ours, in the process's own time, tells why: it has to come first on a
busy machine too."""


class Revisions:
    """Owns every Revision and the proofs under way."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._all: list[Revision] = []
        self._proofs: list[Proof] = []
        self._numbers = 0
        self.recheck = Recheck()
        self.expected = Expected(master.loop)
        self.current: Revision | None = None
        self.rejected: list[Rejected] = []
        self.respawn = Respawn(master)
        self.tidy = Look(master.loop, "no old revision is retired", self._tidy).ask
        """Retire the zygotes that nothing needs, and forget the revisions that are gone."""

    # ── looking ──────────────────────────────────────────────────────────────────────────────

    def __iter__(self) -> Iterator[Revision]:
        return iter(self._all)

    def live(self) -> list[Revision]:
        """Those that may run tasks: the current one first, then the newest."""
        found = [r for r in self._all if r.state in LIVE]
        return sorted(found, key=lambda r: (r is not self.current, -r.number))

    def by_zygote(self, zygote_id: bytes) -> Revision | None:
        return next((r for r in self._all if r.zygote_id == zygote_id), None)

    def by_number(self, number: int) -> Revision:
        return next(r for r in self._all if r.number == number)

    def by_pid(self, pid: int) -> Revision | None:
        return next((r for r in self._all if r.pid == pid), None)

    # ── proving ──────────────────────────────────────────────────────────────────────────────

    def prove(
        self,
        path: str,
        app: App,
        within: float,
        done: Callable[[Revision | DeployRefused], None],
        anew: bool = False,
        living: bool = False,
    ) -> None:
        """Start a zygote for the release at ``path`` and call ``done`` once its manifest is here.

        If it turns out to be a live revision, that one is pinged and given instead, but for
        ``anew``; with ``living`` whatever its files are by now, since its zygote has the code.
        Calls ``done`` exactly once, within ``within`` seconds of its own time.
        """
        twin = self._living(path) if living else None
        revision = twin or self._new(path, app)
        proof = Proof(revision, done, anew)
        pids = lambda: [proof.revision.pid] if proof.revision.pid else []  # noqa: E731
        overdue = lambda: self._overdue(proof, within)  # noqa: E731
        proof.deadline = Deadline(self._master.loop, within, pids, overdue)
        self._proofs.append(proof)
        if twin is not None:
            self._ping(twin)
        else:
            self._start_or_refuse(revision, within)

    def _start_or_refuse(self, revision: Revision, within: float) -> None:
        try:
            self.start_zygote(revision, within)
        except (OSError, DeployRefused) as error:
            self._settle(revision, DeployRefused(f"{revision.name}: cannot start: {error}"))

    def _new(self, path: str, app: App) -> Revision:
        self._numbers += 1
        revision = Revision(path, self._numbers, app, self.name_of(path))
        self._all.append(revision)
        return revision

    def name_of(self, path: str) -> str:
        """What the release at ``path`` is called beside those that live, serve at the next start or
        are gone back to."""
        if (living := self._living(path)) is not None:
            return living.name
        others = [revision.path for revision in self._all]
        with contextlib.suppress(Error, OSError, ImportError):  # a start says what is wrong with it
            if (found := confirmed.read(self._master.places.confirmed)) is not None:
                others += [found.release, found.previous or ""]
        return naming.name(path, others)

    def restore(self, revision: Revision) -> None:
        """Take over a revision of the master before this one."""
        self._numbers = max(self._numbers, revision.number)
        self._all.append(revision)
        if revision.state is RevisionState.CURRENT:
            self.current = revision

    def start_zygote(self, revision: Revision, within: float) -> None:
        """Raises OSError or DeployRefused if its Python cannot be started."""
        dirs = self._master.places
        revision.python = release.interpreter(revision.path, revision.app.python)
        if revision.zygote_id:
            record.remove(dirs.zygotes, revision.zygote_id)
        revision.zygote_id = os.urandom(16)
        revision.is_foreign = False
        orders = boot.Boot(
            id=revision.zygote_id,
            socket=dirs.worker_socket,
            release=revision.path,
            revision=revision.name,
            modules=revision.app.modules,
            fork=revision.app.fork,
            slots=dirs.slots,
            records=dirs.zygotes,
            sockets=dirs.runtime,
            import_within=within * OWN_END,
            number=revision.number,
            app=revision.app._asdict(),
            orphan_grace=self._master.config.daemon.orphan_grace,
        )
        argv = [revision.python, "-P", "-m", "taskd.zygote", title.ROOM]
        revision.pid = spawn.spawn(argv, boot.encode(orders), spawn.environment())
        revision.start = process.start_time(revision.pid) or 0  # it is ours: there until reaped
        log.info("zygote started", revision=revision.name, pid=revision.pid)

    def _overdue(self, proof: Proof, within: float) -> None:
        revision = proof.revision
        if revision.state in LIVE:
            what = "it is live already, and its zygote does not answer"
        else:
            connected = revision.channel is not None
            what = "its app is still importing" if connected else "its Python has not started"
        self._settle(revision, DeployRefused(f"{revision.name}: {what} after {within:.0f} s"))

    def _settle(self, revision: Revision, outcome: Revision | DeployRefused) -> None:
        """The proof of ``revision`` is over, this way or that."""
        proof = next((p for p in self._proofs if p.revision is revision), None)
        if isinstance(outcome, DeployRefused):
            self.reject(revision)
        if proof is not None:
            self._proofs.remove(proof)
            if proof.deadline is not None:
                proof.deadline.cancel()
            proof.done(outcome)

    def reject(self, revision: Revision) -> None:
        """Give up a revision that serves nothing: its zygote and its probe worker are killed.

        One that is live stays.
        """
        if revision.state in LIVE:
            return
        if revision.state in (RevisionState.STARTING, RevisionState.PROVEN):
            revision.take(RevisionEvent.BROKEN)
        for worker in self._master.workers.of(revision):
            self._master.kill(worker.pid or None)
        self._master.kill(revision.pid)

    def abandon_proofs(self) -> None:
        """Nobody waits for the proofs under way any more."""
        for proof in list(self._proofs):
            self._proofs.remove(proof)
            if proof.deadline is not None:
                proof.deadline.cancel()
            if proof.revision.state not in LIVE:
                self.reject(proof.revision)

    def remember(self, path: str, reason: str) -> None:
        """A deploy of the release at ``path`` was refused."""
        self.rejected = rejected.add(self.rejected, path, self.name_of(path), reason, time.time())
        rejected.write(self._master.places.state, self.rejected)

    # ── the zygote speaks ────────────────────────────────────────────────────────────────────

    def greet(self, revision: Revision, channel: Messages, message: dict[str, Any]) -> None:
        """Its hello came, from the right pid with the right id."""
        revision.channel = channel
        revision.start = revision.start or message["start"]
        revision.version = message["version"]
        self._master.ledger.add(channel.wire.fd, Kind.ZYGOTE, revision.ledger_name)
        self.listen(revision)
        self._master.workers.reconcile(revision, message.get("workers"))
        if self.expected.is_for(revision):
            self.recheck.ask(
                revision, False, lambda what: self.expected.met(revision, what is None)
            )
        self._master.loop.soon(lambda: self._came_back(revision))

    def _came_back(self, revision: Revision) -> None:
        self.tidy()
        self._master.workers.zygote_ready(revision)

    def listen(self, revision: Revision) -> None:
        channel = revision.channel
        assert channel is not None
        channel.on_message = lambda message: self._on_message(revision, message)
        channel.wire.on_lost = lambda: self._on_lost(revision)

    def _on_message(self, revision: Revision, message: dict[str, Any]) -> None:
        match message["type"]:
            case "identity" if self.recheck.is_for(revision):
                self.recheck.answer(revision, message)
            case "identity":
                self._identified(revision, message)
            case "manifest":
                self._manifested(revision, message)
            case "broken":
                log.error("app does not import", revision=revision.name, why=message["message"])
                log.lines(str(message.get("traceback", "")))
                why = f"{revision.name} does not import: {message['message']}"
                self._settle(revision, DeployRefused(why))
            case "pong":
                self._settle(revision, revision)
            case _:
                self._master.workers.on_zygote(revision, message)

    def _identified(self, revision: Revision, message: dict[str, Any]) -> None:
        """The same path and files as a live revision: that one is meant, not a second one."""
        fingerprint = message["hash"]
        if revision.fingerprint not in (None, fingerprint):
            why = "the files of a live release have changed; its new workers run what is there now"
            log.warning(why, revision=revision.name)
        revision.fingerprint = revision.fingerprint or fingerprint
        twin = self._living(revision.path)
        if twin is None or twin is revision or self._is_anew(revision):
            return
        mine = [proof for proof in self._proofs if proof.revision is revision]
        self.reject(revision)
        if not mine:  # rejected before
            return
        mine[0].revision = twin
        if twin.fingerprint == fingerprint:
            self._ping(twin)
        elif twin.channel is None:
            self._compared(twin, "changed")
        else:
            self.recheck.ask(twin, False, lambda what: self._compared(twin, what))

    def _living(self, path: str) -> Revision | None:
        return next((r for r in self.live() if r.path == path), None)

    def _compared(self, twin: Revision, what: str | None) -> None:
        """Of a live revision, whose files a new zygote saw otherwise: what its own sees."""
        why = (
            f"{twin.path} is the release of a live revision, and its files {what}. A release must "
            "not change once it is deployed: put the new code into a new directory and deploy that"
        )
        self._settle(twin, twin if what is None else DeployRefused(why))

    def _is_anew(self, revision: Revision) -> bool:
        return any(proof.revision is revision and proof.anew for proof in self._proofs)

    def _ping(self, revision: Revision) -> None:
        if revision.channel is not None:
            revision.channel.send({"type": "ping"})
        elif revision.pid is None:  # its zygote died: starting it again proves as much
            self._start_or_refuse(revision, self._master.config.daemon.prove_timeout)

    def _manifested(self, revision: Revision, message: dict[str, Any]) -> None:
        revision.tasks = message["tasks"]
        revision.taskd = message["taskd"]
        revision.forks = message["forks"]
        revision.warnings = [str(warning)[:LONGEST_WARNING] for warning in message["warnings"]]
        for warning in revision.warnings:
            log.warning(warning, revision=revision.name)
        if revision.state is RevisionState.STARTING:
            revision.take(RevisionEvent.MANIFEST)
        if revision.state in LIVE:
            self._keep_record(revision)
        self._settle(revision, revision)
        self._master.workers.zygote_ready(revision)

    def _keep_record(self, revision: Revision) -> None:
        """It is a revision that serves: should we die, the next master must find it so. One that
        has not proven itself leaves nothing."""
        if revision.channel is not None:
            revision.channel.send({"type": "keep"})

    def _on_lost(self, revision: Revision) -> None:
        """The connection ended; that the zygote is dead, only its exit status says."""
        self._master.ledger.drop(revision.ledger_name)
        revision.channel = None
        pid = revision.pid
        self._master.loop.after(DEAF_WITHIN, lambda: self._end_deaf(revision, pid))

    def _end_deaf(self, revision: Revision, pid: int | None) -> None:
        """A zygote that lives on without a connection (its app closed it) is of no use."""
        if pid is not None and revision.pid == pid and revision.channel is None:
            self._master.kill(pid)

    def on_death(self, revision: Revision, status: int | None) -> None:
        """Its zygote was reaped; or, not being our child, is seen to be dead (status None)."""
        how = death_in_words(status)
        log.info("zygote gone", revision=revision.name, pid=revision.pid, how=how)
        if revision.channel is not None:
            revision.channel.wire.drain()  # what it said last: deaths, and what it just forked
        if revision.channel is not None:
            revision.channel.wire.close()
            self._on_lost(revision)
        revision.pid = None
        revision.zygote_retired = False
        if revision.state in (RevisionState.STARTING, RevisionState.PROVEN):
            self._settle(revision, DeployRefused(early_end(revision, status)))
            self._master.deploy.on_target_lost(revision)
        else:
            self._settle_ping(revision)
        self._master.workers.on_zygote_death(revision)
        self.expected.met(revision, False)
        self.tidy()
        if revision.state in LIVE:
            self.respawn.on_death(revision, status)

    def _settle_ping(self, revision: Revision) -> None:
        if any(proof.revision is revision for proof in self._proofs):
            why = f"{revision.name} is live already, and its zygote died just now; try again"
            self._settle(revision, DeployRefused(why))

    def need_zygote(self, revision: Revision) -> None:
        """A worker of it is wanted: start its zygote if it died."""
        self.respawn.need(revision)

    # ── promoting and retiring ───────────────────────────────────────────────────────────────

    def confirm(self, revision: Revision) -> None:
        """From now on fresh tasks go to ``revision``; the one before drains."""
        before = self.current
        if before is not None and before is not revision:
            before.take(RevisionEvent.SUPERSEDE)
            before.draining_since = time.time()
        revision.take(RevisionEvent.CONFIRM)
        revision.draining_since = 0.0
        self.current = revision
        self._keep_record(revision)

    def _tidy(self) -> None:
        for revision in retirement.gone(self._master):
            self._all.remove(revision)
            record.remove(self._master.places.zygotes, revision.zygote_id)
            self.respawn.forget(revision)

    def is_wanted(self, revision: Revision) -> bool:
        """A deploy or a start is about to promote it, although it may have no worker just now."""
        wanted = (self._master.deploy.target, *(proof.revision for proof in self._proofs))
        return self.expected.is_for(revision) or any(each is revision for each in wanted)
