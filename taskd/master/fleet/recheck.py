"""A second look at a release's files, by its zygote: are they what they were?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from taskd.master.fleet.revision import Revision
from taskd.master.loop import Loop

SHOWN = 3
"""Changed files that are named."""

Done = Callable[[str | None], None]


class Recheck:
    """The one look under way, if any."""

    def __init__(self) -> None:
        self._open: tuple[Revision, bool, Done] | None = None

    def is_for(self, revision: Revision) -> bool:
        return self._open is not None and self._open[0] is revision

    def ask(self, revision: Revision, may_change: bool, done: Done) -> None:
        """Look at the release's files once more, since a start will need them as they are.

        ``may_change``: a hook of the app's own has run in it, and may have written there. ``done``
        is called with None, or with what has become of them, in words; never if the zygote is lost
        (a deadline sees to that).
        """
        self._open = None
        if revision.zygote.channel is None:
            done(None)
            return
        self._open = revision, may_change, done
        revision.zygote.tell({"type": "identify"})

    def answer(self, revision: Revision, message: dict[str, Any]) -> None:
        """What its files are now; an empty hash: they could not be read. A zygote of another taskd
        than the one that was there before it may count otherwise: its own list decides, too."""
        assert self._open is not None
        _, may_change, done = self._open
        self._open = None
        fingerprint, changed = message["hash"], message.get("changed")
        if not fingerprint:
            done("could not be read any more")
        elif may_change or fingerprint == revision.fingerprint or changed == []:
            revision.fingerprint = fingerprint
            done(None)
        else:
            done(f"changed{_named(changed)}")


class Expected:
    """At a start: the zygote of the master before, which has to come back, if one is waited for."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._open: tuple[Revision, Callable[[bool], None]] | None = None

    def is_for(self, revision: Revision) -> bool:
        return self._open is not None and self._open[0] is revision

    def begin(self, revision: Revision, within: float, done: Callable[[bool], None]) -> None:
        """Wait until it is here and its release's files are what they were. Calls ``done`` exactly
        once: whether it is so within so many seconds."""
        self._open = revision, done
        self._loop.after(within, lambda: self.met(revision, False))

    def met(self, revision: Revision, as_it_was: bool) -> None:
        """What was expected has come to pass, or not."""
        if self._open is not None and self._open[0] is revision:
            _, done = self._open
            self._open = None
            done(as_it_was)


def _named(changed: object) -> str:
    names = [str(each) for each in changed] if isinstance(changed, list) else []
    if not names:
        return ""
    more = ", …" if len(names) > SHOWN else ""
    return f" ({', '.join(names[:SHOWN])}{more})"
