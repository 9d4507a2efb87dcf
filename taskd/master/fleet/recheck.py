"""Has a release changed on disk? Its zygote looks at the files once more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from taskd.master.fleet.revision import Revision
from taskd.master.loop import Loop

SHOWN = 3
"""How many changed files are named."""

Done = Callable[[str | None], None]


class Recheck:
    """``revision``: the one whose zygote is looking at its files, or None."""

    revision: Revision | None = None

    def ask(self, revision: Revision, may_change: bool, done: Done) -> None:
        """Have the release's files looked at, since a start will need them as they are.

        ``may_change``: a hook of the app has run there and may have written files. ``done`` is
        called with None, or with what has become of the files, in words. It is not called if the
        zygote dies; the caller has a deadline.
        """
        self.revision = None
        if revision.zygote.channel is None:
            done(None)
            return
        self.revision, self._may_change, self._done = revision, may_change, done
        revision.zygote.tell({"type": "identify"})

    def answer(self, revision: Revision, message: dict[str, Any]) -> None:
        """The zygote has answered. An empty hash: it could not read the files. Another version of
        taskd may hash differently, so that the zygote's own list of changed files counts too."""
        self.revision = None
        fingerprint, changed = message["hash"], message.get("changed")
        if not fingerprint:
            self._done("could not be read any more")
        elif self._may_change or fingerprint == revision.fingerprint or changed == []:
            revision.fingerprint = fingerprint
            self._done(None)
        else:
            names = [str(each) for each in changed] if isinstance(changed, list) else []
            more = ", …" if len(names) > SHOWN else ""
            shown = f" ({', '.join(names[:SHOWN])}{more})" if names else ""
            self._done(f"changed{shown}")


class Expected:
    """``revision``: at a start, the one whose zygote has to connect again, or None."""

    revision: Revision | None = None

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def begin(self, revision: Revision, within: float, done: Callable[[bool], None]) -> None:
        """Wait until the zygote has connected and its release's files have turned out unchanged.
        Calls ``done`` exactly once: whether that was so within ``within`` seconds."""
        self.revision, self._done = revision, done
        self._loop.after(within, lambda: self.met(revision, False))

    def met(self, revision: Revision, as_it_was: bool) -> None:
        """The wait for this revision, if there is one, is over. ``as_it_was``: the zygote is here
        and the files are unchanged."""
        if self.revision is revision:
            self.revision = None
            self._done(as_it_was)
