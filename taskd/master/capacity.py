"""Whether one more revision fits: the cap on live revisions.

Asked at the beginning of a deploy; a refusal names who holds which revision.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskd.config import Config
from taskd.errors import DeployRefused
from taskd.model.revision import LIVE

if TYPE_CHECKING:
    from taskd.master.core import Master
    from taskd.master.revisions import Revision

SHOWN = 5
"""Tasks named for each revision."""


def check(master: Master, settings: Config, path: str) -> None:
    """Raises DeployRefused if the release at ``path`` would be one revision too many."""
    live = [r for r in master.revisions if r.state in LIVE]
    if any(r.path == path for r in live) or len(live) < settings.app.max_revisions:
        return
    raise DeployRefused(
        f"{len(live)} revisions are alive, and [app] max_revisions is "
        f"{settings.app.max_revisions}: {blockers(master, live)}. Wait until one has drained, or "
        "end it with `taskctl drain --revision R --checkpoint` (or --now)"
    )


def blockers(master: Master, live: list[Revision]) -> str:
    """Who holds which revision, in words."""
    return "; ".join(f"{r.name} is held by {_holders(master, r)}" for r in live)


def _holders(master: Master, revision: Revision) -> str:
    if revision is master.revisions.current:
        return "being the current one"
    found = [w.running for w in master.workers.of(revision) if w.running is not None]
    shown = ", ".join(f"task {running.task} ({running.name})" for running in found[:SHOWN])
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return shown + more or "tasks that wait for it"
