"""Which limits are in force: declared by the revision that serves, kept and heeded by the store.

They are those of its tasks' code and of the configuration that it was proved with. The master takes
them up whenever a revision begins to serve, before it starts any task: at a start, a deploy, a
rollback. The numbers of a limit that nobody declares any more go on in the store, for the tasks
that carry it. After that, all that waits for a limit is looked at once more: numbers may have
changed, and taskd 0.2, which knows no limits, may have run tasks.
"""

from __future__ import annotations

import time
from typing import Any

from taskd import log
from taskd.errors import StoreError
from taskd.master.fleet import Revision, Revisions
from taskd.master.loop import Loop, Notice, Storage
from taskd.model import limits as model
from taskd.model.limits import Numbers
from taskd.model.routing import is_older
from taskd.record import Record
from taskd.store.api import Applied
from taskd.store.limit_api import LIMITS, QUEUE, TASK, Release, TakeUpLimits
from taskd.store.queries import LimitsInForce
from taskd.store.values import Limit, Obstacle

NOT_TAKEN_UP = "limits are not taken up"
"""The trouble's name."""

AT_ONCE = 50
"""Keys that are looked at in one transaction."""

_CONFIG = "taskd.toml"

_KNOWN_SINCE = "0.3"
"""The taskd that keeps limits."""


class Defined(Record):
    """The limits of a revision by name; its tasks that have none of their own; and, of limits that
    have no numbers, the sentence why that cannot be."""

    limits: dict[str, Limit]
    unlimited: tuple[str, ...]
    wrong: list[str]


class Limits:
    """``changed``: limits were taken up, or something was put back; ``has_rates``: a timer is
    needed for what waits for a rate."""

    def __init__(self, loop: Loop, storage: Storage, revisions: Revisions) -> None:
        self._loop = loop
        self._storage = storage
        self._revisions = revisions
        self._in_force: dict[str, Limit] = {}
        self.changed: Notice[[]] = Notice()

    @property
    def has_rates(self) -> bool:
        return any(each.every is not None for each in self._in_force.values())

    def begin(self) -> None:
        """A revision serves. Called before anything is started: the store keeps the order."""
        current = self._revisions.current
        if current is None:
            return
        found = of(current)
        operation = TakeUpLimits(tuple(found.limits.values()), found.unlimited)

        def done(outcome: Applied | StoreError) -> None:
            if isinstance(outcome, StoreError):
                self._loop.troubles.tell(NOT_TAKEN_UP, outcome)
                self._loop.again(self.begin)
                return
            if isinstance(outcome.result, Exception):
                self._loop.troubles.tell(NOT_TAKEN_UP, outcome.result)
            else:
                self._loop.troubles.over(NOT_TAKEN_UP)
                for name, change in outcome.result:
                    log.info("limit", name=name, change=change)
            self._storage.ask(LimitsInForce(), self._told)
            self._release(None)

        self._storage.write(operation, done)

    def _told(self, found: list[Limit] | StoreError) -> None:
        if isinstance(found, StoreError):
            self._loop.again(lambda: self._storage.ask(LimitsInForce(), self._told))
            return
        self._in_force = {each.name: each for each in found}
        self.changed()

    def _release(self, after: str | None) -> None:
        """Look at all that waits for a limit, some keys at a time."""

        def done(outcome: Applied | StoreError) -> None:
            if isinstance(outcome, StoreError):
                self._loop.again(lambda: self._release(after))
                return
            self.changed()
            if outcome.result is not None:
                self._release(outcome.result)

        self._storage.write(Release(after, AT_ONCE), done)

    # ── what a deploy does with them ─────────────────────────────────────────────────────────

    def refusal(self, target: Revision) -> str | None:
        """Why a deploy of ``target`` cannot be."""
        wrong = of(target).wrong
        more = f"; and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        return "; ".join(wrong[:3]) + more if wrong else None

    def warnings(self, target: Revision) -> list[str]:
        """What a deploy of ``target`` changes about limits."""
        if is_older(target.taskd, _KNOWN_SINCE):
            if not self._in_force:
                return []
            names = ", ".join(map(named, self._in_force))
            return [
                f"limits are not kept by taskd {target.taskd}, which {target.name} brings: {names}"
            ]
        after, told = of(target), []
        for name, was in self._in_force.items():
            now = after.limits.get(name)
            if now is not None:
                if now[1:4] != was[1:4]:
                    told.append(f"limit {named(name)}: {_words(was)} becomes {_words(now)}")
            elif name in after.unlimited or name.startswith(QUEUE):
                told.append(f"limit {named(name)}: ends ({_words(was)})")
            elif not was.dropped:
                told.append(
                    f"limit {named(name)} is declared no longer: {_words(was)} goes on for the "
                    "tasks that carry it"
                )
        told += [
            f"limit {named(name)}: new: {_words(limit)}"
            for name, limit in after.limits.items()
            if name not in self._in_force
        ]
        return told


def of(revision: Revision) -> Defined:
    found: dict[str, Limit] = {}
    used: dict[str, str] = {}
    unlimited, wrong = [], []

    def add(name: str, numbers: Numbers, source: str) -> None:
        found[name] = Limit._make((name, *numbers, source, False))

    for task, entry in revision.tasks.items():
        said = entry.get("limits") or {}  # 0.2 does not tell
        own = {} if said.get("own") is None else {TASK + task: said["own"]}
        if not own:
            unlimited.append(TASK + task)
        try:
            for name, numbers in {**(said.get("numbers") or {}), **own}.items():
                add(name, model.stated(numbers), revision.name)
        except ValueError as error:
            wrong.append(f"task '{task}': {error}")
        for template in said.get("keys") or ():
            used.setdefault(template.partition(":")[0], task)
    for name, section in (revision.app.limits or {}).items():
        if (section_says := model.numbers(section)) is not None:
            add(name, section_says, _CONFIG)
        task = name.removeprefix(TASK)
        if name.startswith(TASK) and task not in revision.tasks:
            wrong.append(f"{_CONFIG} has [tasks.{task}], and {revision.name} has no task {task!r}")
    for name, task in used.items():
        if name not in found:
            wrong.append(
                f"task '{task}' names the limit '{name}', which has no numbers: call "
                f'taskd.limit("{name}", concurrency=…) in the code, or write [limits.{name}] into '
                f"{_CONFIG}"
            )
    if len(found) > LIMITS:
        wrong.append(f"{len(found)} limits are more than {LIMITS:,}")
    return Defined(found, tuple(each for each in unlimited if each not in found), wrong)


def named(name: str) -> str:
    """``customer``, ``task index``, ``queue mail``."""
    kind, _, rest = name.removeprefix("=").partition(":")
    return f"{kind} {rest}" if name.startswith("=") else f"'{name}'"


def _words(limit: Limit) -> str:
    return model.in_words(limit.concurrency, limit.every, limit.burst)


def in_words(found: Obstacle, now: float | None = None) -> str:
    """``waits for limit customer:7 (2 at once): held by task 812 (r41, since 10:02), …``."""
    limit = found.limit
    words = f"waits for limit {named(found.key)} ({_words(limit)}; by {limit.source}"
    words += ", which is declared no longer)" if limit.dropped else ")"
    if found.wait is not None:
        return f"{words}: its rate lets the next one start in {max(1, round(found.wait))} s"
    held = [_holder(each) for each in found.holders[:3]]
    more = f" and {found.held - len(held)} more" if found.held > len(held) else ""
    return f"{words}: held by {', '.join(held)}{more}" if held else f"{words}: it is full"


def advice(found: Obstacle) -> str:
    where = "taskd.toml" if found.limit.source == _CONFIG else "the code"
    if found.wait is not None:
        return f"nothing; a higher rate stands in {where}, and is taken up by a deploy"
    first = f", or `taskctl cancel {found.holders[0].task}`" if found.holders else ""
    return (
        f"it begins by itself once one of these has ended; a higher number stands in {where}, and "
        f"is taken up by a deploy{first}"
    )


def _holder(holder: Any) -> str:
    what = "on its way to another revision" if holder.moves else holder.revision
    since = ""
    if holder.since is not None:
        since = f", since {time.strftime('%Y-%m-%d %H:%M', time.localtime(holder.since))}"
    return f"task {holder.task} ({what}{since})"
