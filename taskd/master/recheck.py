"""A second look at a release's files, by its zygote: are they what they were?"""

from __future__ import annotations

from collections.abc import Callable

from taskd.errors import DeployRefused
from taskd.master.revision import Revision

RECHECKS = 2
"""Worker protocol version from which a zygote tells the release's identity when asked."""


class Recheck:
    """The one look under way, if any."""

    def __init__(self) -> None:
        self._open: tuple[Revision, bool, Callable[[DeployRefused | None], None]] | None = None

    def is_for(self, revision: Revision) -> bool:
        return self._open is not None and self._open[0] is revision

    def ask(
        self, revision: Revision, may_change: bool, done: Callable[[DeployRefused | None], None]
    ) -> None:
        """Look at the release's files once more, since a start will need them as they are.

        ``may_change``: a hook of the app's own has run in it, and may have written there. ``done``
        is called with None, or with why not; never if the zygote is lost (a deadline sees to that).
        """
        self._open = None
        if revision.version < RECHECKS or revision.channel is None:
            done(None)
            return
        self._open = revision, may_change, done
        revision.channel.send({"type": "identify"})

    def answer(self, revision: Revision, fingerprint: str) -> None:
        """What its files are now; empty: they could not be read."""
        assert self._open is not None
        _, may_change, done = self._open
        self._open = None
        if fingerprint and (may_change or fingerprint == revision.fingerprint):
            revision.fingerprint = fingerprint
            done(None)
            return
        what = "changed" if fingerprint else "could not be read any more"
        why = (
            f"the files of {revision.path} {what} while it was being deployed. A release must be "
            "whole before it is deployed, and stay as it is: build it elsewhere and move it there"
        )
        done(DeployRefused(why))
