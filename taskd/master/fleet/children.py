"""Reaps the master's children: helpers, zygotes, workers of dead zygotes, and their leftovers."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from taskd import log
from taskd.master.fleet.revisions import Revisions
from taskd.master.fleet.workers import Workers
from taskd.master.fleet.zygotes import Zygotes
from taskd.master.loop import Life, Loop, Notice
from taskd.posix import tree
from taskd.posix.cleaners import GRACE, Patience


class Children:
    """``helpers``: by pid, the function to call with a helper's wait status. ``not_ours``: children
    that the process had before it became a master. ``reaped``: called after each ``reap``."""

    def __init__(
        self, loop: Loop, life: Life, revisions: Revisions, workers: Workers, zygotes: Zygotes
    ) -> None:
        self._loop = loop
        self._life = life
        self._revisions = revisions
        self._workers = workers
        self._zygotes = zygotes
        self.helpers: dict[int, Callable[[int], None]] = {}
        self.not_ours: frozenset[int] = frozenset()
        self.reaped: Notice[[]] = Notice()
        self._patience = Patience()  # with leftovers of a dead zygote
        self._has_orphans = False  # a zygote died; its descendants became the master's children
        self._looks_again = False

    def kept(self) -> set[int]:
        """The pids of all children that are not leftovers."""
        zygotes = {r.zygote.pid for r in self._revisions if r.zygote.pid is not None}
        return zygotes | {w.pid for w in self._workers} | self.not_ours | self.helpers.keys()

    def reap(self) -> None:
        """Reap every child that has died (called on every SIGCHLD)."""
        assert not self._life.is_adopting, "no child is reaped before it is decided who serves"
        for pid in list(self.helpers):
            dead, status = os.waitpid(pid, os.WNOHANG)
            if dead:
                self.helpers.pop(pid)(status)
                self.reaped()  # what comes below may fail, with a transient error
        for revision in self._revisions:
            zygote = revision.zygote
            if zygote.pid is not None and not zygote.is_foreign:
                with contextlib.suppress(ChildProcessError):
                    dead, status = os.waitpid(zygote.pid, os.WNOHANG)
                    if dead:
                        self._workers.last_words(dead)
                        self._has_orphans, self._patience = True, Patience()
                        self._zygotes.on_death(revision, status)
        self._workers.reap_own()
        self._reap_strays()
        self.reaped()

    def _reap_strays(self) -> None:
        """Reap children that are no workers (processes of the app, leftovers of workers). After the
        death of a zygote, which was their parent until then, kill them as well."""
        known = self.kept()
        try:
            if self._has_orphans:
                self._has_orphans = tree.strike(known, self._patience)
                if self._has_orphans and not self._looks_again:
                    # A process that does not end within its time sends no SIGCHLD.
                    self._looks_again = True
                    self._loop.after(GRACE, self._look_again)
                return
            found = tree.children()
        except OSError as error:  # transient error, no descriptor is left: zombies can wait
            log.warning("cannot look for strays", why=error.strerror)
            self._loop.again(self.reap)
            return
        for pid in found:
            if pid not in known:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)

    def _look_again(self) -> None:
        self._looks_again = False
        self.reap()
