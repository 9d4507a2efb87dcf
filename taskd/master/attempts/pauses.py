"""What is paused, as it is told: the store itself gives no paused task to a worker."""

from __future__ import annotations

import pwd
import time
from typing import Any

from taskd.master.loop import Copied, Loop, Notice, Storage
from taskd.store.queries import Pauses as Asked
from taskd.store.values import Paused, Scope

UNKNOWN = "what is paused is not known"
"""The trouble's name."""


class Pauses:
    """A copy of the store's pauses; ``look``: read them anew, after each change and each exec."""

    def __init__(self, loop: Loop, storage: Storage) -> None:
        self._all: list[Paused] = []
        self.changed: Notice[[]] = Notice()
        self.look = Copied(loop, storage, Asked(), UNKNOWN, self._take).look

    def _take(self, found: list[Paused]) -> None:
        self._all = found
        self.changed()

    def in_force(self) -> list[Paused]:
        now = time.time()
        return [each for each in self._all if each.until is None or each.until > now]

    def why(self, queue: str, name: str) -> str | None:
        """Why no fresh task of that queue and name is started; None: it is not paused."""
        for each in self.in_force():
            if each.scope in (Scope(), Scope(queue=queue), Scope(name=name)):
                return f"waits: {in_words(each)}; go on: {command(each.scope)}"
        return None

    def told(self) -> list[dict[str, Any]]:
        """As clients see them (``paused`` of ``status``)."""
        return [
            {
                "queue": each.scope.queue,
                "task": each.scope.name,
                "by": each.by,
                "at": each.at,
                "until": each.until,
                "why": each.why,
                "text": in_words(each),
                "resume": command(each.scope),
            }
            for each in self.in_force()
        ]

    def warnings(self) -> list[str]:
        """For a deploy's plan."""
        return [f"{in_words(each)}, and stays so" for each in self.in_force()]


def named(scope: Scope) -> str:
    if scope.queue:
        return f"queue '{scope.queue}'"
    return f"task '{scope.name}'" if scope.name else "everything"


def command(scope: Scope) -> str:
    """What resumes it."""
    if scope.queue:
        return f"taskctl resume --queue {scope.queue}"
    return f"taskctl resume --task {scope.name}" if scope.name else "taskctl resume --all"


def in_words(paused: Paused) -> str:
    """``queue 'mail' is paused by anna since 2 Dec 09:30, until 11:30: the server is down``."""
    words = [f"{named(paused.scope)} is paused by {user(paused.by)} since {date(paused.at)}"]
    if paused.until is not None:
        words.append(f", until {date(paused.until)}")
    if paused.why:
        words.append(f": {paused.why}")
    return "".join(words)


def date(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))


def user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
