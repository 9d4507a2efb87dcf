"""Proving a release: its zygote is started, imports the app, and says what is in it.

A release whose path and files are those of a live revision is that revision: it is asked for a sign
of life instead, and the new zygote is dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from taskd import log
from taskd.config import App, Config
from taskd.errors import DeployRefused
from taskd.master.fleet.orphans import Orphans
from taskd.master.fleet.recheck import Recheck
from taskd.master.fleet.revision import Revision
from taskd.master.fleet.revisions import Revisions, keep_record
from taskd.master.fleet.workers import Workers
from taskd.master.fleet.zygotes import Zygotes
from taskd.master.loop import Deadline, Loop
from taskd.model.endings import death_in_words
from taskd.model.revision import LIVE, RevisionEvent, RevisionState

LONGEST_WARNING = 1000
"""Characters of a warning of a release's proof that are told."""

Done = Callable[[Revision | DeployRefused], None]

_NOT_YET = (RevisionState.STARTING, RevisionState.PROVEN)


class Proof:
    """One proof under way (or a ping that has to come back). ``is_another``: it counts as another
    revision, also where the same release is live."""

    __slots__ = ("deadline", "done", "is_another", "revision")

    def __init__(self, revision: Revision, done: Done, is_another: bool) -> None:
        self.revision = revision  # changes if it turns out to be a live one
        self.done = done
        self.is_another = is_another
        self.deadline: Deadline | None = None


class Proofs:
    """Owns the proofs under way, one for a revision."""

    def __init__(
        self,
        loop: Loop,
        config: Config,
        revisions: Revisions,
        workers: Workers,
        zygotes: Zygotes,
        orphans: Orphans,
        recheck: Recheck,
    ) -> None:
        self._loop = loop
        self._config = config
        self._revisions = revisions
        self._workers = workers
        self._zygotes = zygotes
        self._orphans = orphans
        self._recheck = recheck
        self._all: dict[Revision, Proof] = {}

    def is_for(self, revision: Revision) -> bool:
        return revision in self._all

    def begin(
        self,
        path: str,
        app: App,
        within: float,
        done: Done,
        is_another: bool = False,
        may_have_changed: bool = False,
    ) -> None:
        """Start a zygote for the release at ``path`` and call ``done`` once its manifest is here.

        If it turns out to be a live revision, that one is pinged and given instead, but for
        ``is_another``; with ``may_have_changed`` whatever its files are by now, since its zygote
        has the code. Calls ``done`` exactly once, within ``within`` seconds of its own time.
        """
        twin = self._revisions.living(path) if may_have_changed else None
        revision = twin or self._revisions.add(path, app)
        proof = self._all[revision] = Proof(revision, done, is_another)

        def pids() -> list[int]:
            return [pid] if (pid := proof.revision.zygote.pid) else []

        def overdue() -> None:
            revision = proof.revision
            if revision.state in LIVE:
                what = "it is live already, and its zygote does not answer"
            elif revision.zygote.channel is not None:
                what = "its app is still importing"
            else:
                what = "its Python has not started"
            self._refuse(revision, f"{revision.name}: {what} after {within:.0f} s")

        proof.deadline = Deadline(self._loop, within, pids, overdue)
        if twin is not None:
            self._ping(twin)
        else:
            self._start(revision, within)

    def _start(self, revision: Revision, within: float) -> None:
        try:
            self._zygotes.start(revision, within)
        except (OSError, DeployRefused) as error:
            self._refuse(revision, f"{revision.name}: cannot start: {error}")

    def _ping(self, revision: Revision) -> None:
        if not revision.zygote.tell({"type": "ping"}) and revision.zygote.pid is None:
            # Its zygote died: starting it again proves as much.
            self._start(revision, self._config.daemon.prove_timeout)

    # ── the end of a proof ───────────────────────────────────────────────────────────────────

    def _settle(self, revision: Revision, outcome: Revision | DeployRefused) -> None:
        proof = self._all.pop(revision, None)
        if isinstance(outcome, DeployRefused):
            self.reject(revision)
        if proof is not None:
            if proof.deadline is not None:
                proof.deadline.cancel()
            proof.done(outcome)

    def _refuse(self, revision: Revision, why: str) -> None:
        self._settle(revision, DeployRefused(why))

    def reject(self, revision: Revision) -> None:
        """Give up a revision that serves nothing: its zygote and its probe worker are killed.

        One that is live stays.
        """
        if revision.state in LIVE:
            return
        if revision.state in _NOT_YET:
            revision.take(RevisionEvent.BROKEN)
        for worker in self._workers.of(revision):
            self._orphans.kill(worker.pid or None)
        self._zygotes.kill(revision)

    def abandon(self) -> None:
        """The deploy that waited for the proofs under way is over."""
        for revision, proof in list(self._all.items()):
            del self._all[revision]
            if proof.deadline is not None:
                proof.deadline.cancel()
            self.reject(revision)

    # ── what zygotes say ─────────────────────────────────────────────────────────────────────

    def on_told(self, revision: Revision, message: dict[str, Any]) -> None:
        match message["type"]:
            case "identity" if self._recheck.is_for(revision):
                self._recheck.answer(revision, message)
            case "identity":
                self._identified(revision, message["hash"])
            case "manifest":
                self._manifested(revision, message)
            case "broken":
                log.error("app does not import", revision=revision.name, why=message["message"])
                log.lines(str(message.get("traceback", "")))
                self._refuse(revision, f"{revision.name} does not import: {message['message']}")
            case "pong":
                self._settle(revision, revision)

    def _identified(self, revision: Revision, fingerprint: str) -> None:
        """The same path and files as a live revision: that one is meant, not a second one."""
        if revision.fingerprint not in (None, fingerprint):
            why = "the files of a live release have changed; its new workers run what is there now"
            log.warning(why, revision=revision.name)
        revision.fingerprint = revision.fingerprint or fingerprint
        twin, proof = self._revisions.living(revision.path), self._all.get(revision)
        if twin is None or twin is revision or (proof is not None and proof.is_another):
            return
        self.reject(revision)
        if proof is None:  # rejected before
            return
        del self._all[revision]
        proof.revision = twin
        self._all[twin] = proof
        if twin.fingerprint == fingerprint:
            self._ping(twin)
        elif twin.zygote.channel is None:
            self._compared(twin, "changed")
        else:
            self._recheck.ask(twin, False, lambda what: self._compared(twin, what))

    def _compared(self, twin: Revision, what: str | None) -> None:
        """Of a live revision, whose files a new zygote saw otherwise: what its own zygote sees."""
        if what is None:
            self._settle(twin, twin)
            return
        self._refuse(
            twin,
            f"{twin.path} is the release of a live revision, and its files {what}. A release must "
            "not change once it is deployed: put the new code into a new directory and deploy that",
        )

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
            keep_record(revision)
        self._settle(revision, revision)
        self._zygotes.ready(revision)

    def on_death(self, revision: Revision, status: int | None) -> None:
        """The zygote of ``revision`` has died."""
        if revision.state in _NOT_YET:
            self._refuse(revision, _early_end(revision, status))
        elif revision in self._all:
            why = f"{revision.name} is live already, and its zygote died just now; try again"
            self._refuse(revision, why)


def _early_end(revision: Revision, status: int | None) -> str:
    """Why a zygote died before its manifest came."""
    if revision.fingerprint is not None:  # it has spoken
        what = "its process ended while the app was importing"
    else:
        what = (
            f"{revision.zygote.python} ended before it came to the app; can it import taskd? (see "
            "the log)"
        )
    return f"{revision.name}: {what}: {death_in_words(status)}"
