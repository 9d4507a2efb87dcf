"""How many tasks of each queue may run at once: as an operator said for now, else taskd.toml.

The store keeps what was said; this copy of it is read anew after each change, exec and start,
before anything is started. Lowering it ends nothing that runs.
"""

from __future__ import annotations

import time
from typing import Any

from taskd.config import Config
from taskd.master.attempts.pauses import date, user
from taskd.master.loop import Copied, Loop, Storage
from taskd.store.concurrency_api import Said
from taskd.store.queries import Concurrencies

UNKNOWN = "what concurrency was set for now is not known"
"""The trouble's name."""


class Concurrency:
    """``look``: read it anew."""

    def __init__(self, loop: Loop, config: Config, storage: Storage) -> None:
        self._config = config
        self._said: dict[str, Said] = {}
        self.look = Copied(loop, storage, Concurrencies(), UNKNOWN, self._take).look

    def _take(self, found: list[Said]) -> None:
        self._said = {each.queue: each for each in found}

    def of(self, queue: str) -> int:
        said = self._said.get(queue)
        if said is None or _is_over(said):
            return self._config.concurrency(queue)
        return said.tasks

    def named(self) -> list[str]:
        """The queues of which taskd.toml or an operator says something."""
        return [*self._config.queues, *(self._said.keys() - self._config.queues.keys())]

    @property
    def elsewhere(self) -> int:
        """That of all other queues."""
        return self._config.concurrency_elsewhere

    def said(self, queue: str) -> dict[str, Any] | None:
        """What an operator has said, as clients see it."""
        said = self._said.get(queue)
        if said is None or _is_over(said):
            return None
        return {"by": said.by, "until": said.until, "text": self._in_words(said)}

    def told(self) -> list[str]:
        """For ``status`` and a deploy's plan."""
        return [self._in_words(each) for each in self._said.values() if not _is_over(each)]

    def _in_words(self, said: Said) -> str:
        until = "" if said.until is None else f" until {date(said.until)}"
        return (
            f"queue '{said.queue}' has concurrency {said.tasks}{until}, as {user(said.by)} said on "
            f"{date(said.at)}{said.why and ': '}{said.why}; taskd.toml says "
            f"{self._config.concurrency(said.queue)}"
        )


def _is_over(said: Said) -> bool:
    return said.until is not None and said.until <= time.time()
