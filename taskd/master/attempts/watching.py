"""What is watched of each running attempt: how long it runs, and when it last reported anything."""

from __future__ import annotations

from collections.abc import Callable

from taskd.config import Config
from taskd.master.attempts.attempts import Attempts
from taskd.master.attempts.silences import Silences
from taskd.master.attempts.timeouts import Timeouts
from taskd.master.fleet import Running, Worker
from taskd.master.loop import Loop, Storage
from taskd.paths import Places


class Watching:
    """``watch``: an attempt has begun, or is known to this master; ``heard``: it has told its
    progress; ``forget``: it is over."""

    def __init__(
        self,
        loop: Loop,
        config: Config,
        places: Places,
        storage: Storage,
        attempts: Attempts,
        kill: Callable[[Worker, str], None],
    ) -> None:
        self._timeouts = Timeouts(loop, config, storage, attempts, kill)
        self._silences = Silences(loop, config, places, storage, attempts)
        self.heard = self._silences.heard

    def watch(self, worker: Worker) -> None:
        """May be called again for the same attempt."""
        self._timeouts.watch(worker)
        self._silences.watch(worker)

    def forget(self, running: Running) -> None:
        self._timeouts.forget(running)
        self._silences.forget(running)
