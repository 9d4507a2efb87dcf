"""Proves a release: starts its zygote, which imports the app and sends the manifest.

A release whose path, files and settings (``App.is_proved_as``; the environment is one of them) are
those of a live revision is that revision: its zygote is pinged instead, and the new zygote is
killed. With the same path and files but other settings it is another revision.
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
"""Characters of a manifest's warning; the rest is cut off."""

Done = Callable[[Revision | DeployRefused], None]

_NOT_YET = (RevisionState.STARTING, RevisionState.PROVEN)


class Proof:
    """One proof under way, or a ping that waits for its pong. ``app``: the settings of the release;
    ``within``: seconds. ``is_another``: the release becomes another revision even if a live
    revision has the same path, files and settings."""

    __slots__ = ("app", "deadline", "done", "is_another", "revision", "within")

    deadline: Deadline

    def __init__(
        self, revision: Revision, app: App, within: float, done: Done, is_another: bool
    ) -> None:
        self.revision = revision  # replaced if the release turns out to be a live revision's
        self.app = app
        self.within = within
        self.done = done
        self.is_another = is_another


class Proofs:
    """``under_way``: the proofs, by revision, owned."""

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
        self.under_way: dict[Revision, Proof] = {}

    def begin(
        self,
        path: str,
        app: App,
        within: float,
        done: Done,
        is_another: bool = False,
        may_have_changed: bool = False,
    ) -> None:
        """Start a zygote for the release at ``path`` and call ``done`` once its manifest has come.

        If a live revision has the same path, files and settings, that one is pinged and given to
        ``done`` instead, unless ``is_another``. ``may_have_changed``: a live revision of the path
        and settings is pinged even if its files have changed, since its zygote has the code. Calls
        ``done`` exactly once, within ``within`` seconds of the zygote's own time.
        """
        twin = self._revisions.living(path, app) if may_have_changed else None
        revision = twin or self._revisions.add(path, app)
        proof = Proof(revision, app, within, done, is_another)

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
            why = f"{revision.name}: {what} after {within:.0f} s"
            self._settle(revision, DeployRefused(why))

        proof.deadline = Deadline(self._loop, within, pids, overdue)
        self.under_way[revision] = proof
        self._ask(revision, within if twin is None else self._config.daemon.prove_timeout)

    def _ask(self, revision: Revision, within: float) -> None:
        """Ping the revision's zygote, or start it if there is none, which proves as much."""
        if revision.zygote.tell({"type": "ping"}) or revision.zygote.pid is not None:
            return
        try:
            self._zygotes.start(revision, within)
        except (OSError, DeployRefused) as error:
            self._settle(revision, DeployRefused(f"{revision.name}: cannot start: {error}"))

    # ── the end of a proof ───────────────────────────────────────────────────────────────────

    def _settle(self, revision: Revision, outcome: Revision | DeployRefused) -> None:
        proof = self.under_way.pop(revision, None)
        if isinstance(outcome, DeployRefused):
            self.reject(revision)
        if proof is not None:
            proof.deadline.cancel()
            proof.done(outcome)

    def reject(self, revision: Revision) -> None:
        """Kill the zygote and the probe worker of a revision, unless it is live."""
        if revision.state in LIVE:
            return
        if revision.state in _NOT_YET:
            revision.take(RevisionEvent.BROKEN)
        for worker in self._workers.of(revision):
            self._orphans.kill(worker.pid or None)
        self._zygotes.kill(revision)

    def abandon(self) -> None:
        """The deploy that waited for the proofs is over: end them without calling ``done``."""
        for revision, proof in list(self.under_way.items()):
            del self.under_way[revision]
            proof.deadline.cancel()
            self.reject(revision)

    # ── what zygotes say ─────────────────────────────────────────────────────────────────────

    def on_greeted(self, revision: Revision, _: object) -> None:
        """Its zygote has connected. That of a live revision has done so again, after a crash of the
        master: it sends no manifest, and what was asked before did not reach it."""
        if revision.state in LIVE and revision in self.under_way:
            revision.zygote.tell({"type": "ping"})

    def on_told(self, revision: Revision, message: dict[str, Any]) -> None:
        match message["type"]:
            case "identity" if self._recheck.revision is revision:
                self._recheck.answer(revision, message)
            case "identity":
                self._identified(revision, message["hash"])
            case "manifest":
                self._manifested(revision, message)
            case "broken":
                what = "cannot be used" if message.get("imports") else "does not import"
                log.error(f"app {what}", revision=revision.name, why=message["message"])
                log.lines(str(message.get("traceback", "")))
                why = f"{revision.name} {what}: {message['message']}"
                self._settle(revision, DeployRefused(why))
            case "pong":
                self._settle(revision, revision)

    def _identified(self, revision: Revision, fingerprint: str) -> None:
        """A zygote has sent the fingerprint of its files. If a live revision has the same path, the
        proof goes on with that one, unless it is to be another, or has other settings alone."""
        if revision.fingerprint not in (None, fingerprint):
            why = "the files of a live release have changed; its new workers run what is there now"
            log.warning(why, revision=revision.name)
        revision.fingerprint = revision.fingerprint or fingerprint
        alike = self._revisions.living(revision.path, revision.app)
        twin, proof = alike or self._revisions.living(revision.path), self.under_way.get(revision)
        if alike is None and twin is not None and twin.fingerprint == fingerprint:
            return
        if twin is None or twin is revision or (proof is not None and proof.is_another):
            return
        self.reject(revision)
        if proof is None:  # rejected before
            return
        del self.under_way[revision]
        proof.revision = twin
        self.under_way[twin] = proof
        if twin.fingerprint == fingerprint:
            self._ask(twin, self._config.daemon.prove_timeout)
        elif twin.zygote.channel is None:
            self._compared(twin, "changed")
        else:
            self._recheck.ask(twin, False, lambda what: self._compared(twin, what))

    def _compared(self, twin: Revision, what: str | None) -> None:
        """``what``: how the files of a live revision have changed, or None if a look by its own
        zygote has shown that they have not."""
        if what is None:
            proof = self.under_way.get(twin)
            if proof is None or twin.app.is_proved_as(proof.app):
                self._settle(twin, twin)
                return
            proof.deadline.cancel()
            del self.under_way[twin]
            self.begin(twin.path, proof.app, proof.within, proof.done, is_another=True)
            return
        why = (
            f"{twin.path} is the release of a live revision, and its files {what}. A release must "
            "not change once it is deployed: put the new code into a new directory and deploy that"
        )
        self._settle(twin, DeployRefused(why))

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
        if revision.state not in _NOT_YET:
            if revision in self.under_way:
                why = f"{revision.name} is live already, and its zygote died just now; try again"
                self._settle(revision, DeployRefused(why))
            return
        if revision.fingerprint is not None:
            what = "its process ended while the app was importing"
        else:
            what = (
                f"{revision.zygote.python} ended before it came to the app; can it import taskd? "
                "(see the log)"
            )
        why = f"{revision.name}: {what}: {death_in_words(status)}"
        self._settle(revision, DeployRefused(why))
