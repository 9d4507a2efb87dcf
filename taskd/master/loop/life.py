"""The daemon's life as a transition table, and what may be done in which state.

    starting ──serve──▶ serving ◀──release── holding ◀──give back── adopting
        │               │     └────hold─────▶   │                      │
        └─────stop──────┴────────stop───────────┘      ◀────serve──────┘
                         ▼
                      stopping

                 dispatch, fork   requests that write   reap, write   start zygotes
    starting     no               no                    yes           yes
    adopting     no               no                    no            no (nothing runs yet)
    serving      yes              yes                   yes           yes
    holding      no               yes                   yes           yes
    stopping     no               yes                   yes           no

**Starting**: a start proves its release. **Adopting**: a new image, before it is decided which
image serves. **Holding**: a deploy lets forks and claims come to their end before the exec, or the
old image was given the daemon back. **Stopping** has no way out but the end of the process.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from taskd.master.loop.notice import Notice
from taskd.model.table import after


class LifeState(Enum):
    STARTING = "starting"
    ADOPTING = "adopting"
    SERVING = "serving"
    HOLDING = "holding"
    STOPPING = "stopping"


class LifeEvent(Enum):
    SERVE = "serve"
    HOLD = "hold"
    RELEASE = "release"
    GIVE_BACK = "give back"
    STOP = "stop"


LIFE: Mapping[tuple[LifeState, LifeEvent], LifeState] = {
    (LifeState.STARTING, LifeEvent.SERVE): LifeState.SERVING,
    (LifeState.ADOPTING, LifeEvent.SERVE): LifeState.SERVING,
    (LifeState.ADOPTING, LifeEvent.GIVE_BACK): LifeState.HOLDING,
    (LifeState.SERVING, LifeEvent.HOLD): LifeState.HOLDING,
    (LifeState.HOLDING, LifeEvent.RELEASE): LifeState.SERVING,
    (LifeState.STARTING, LifeEvent.STOP): LifeState.STOPPING,
    (LifeState.SERVING, LifeEvent.STOP): LifeState.STOPPING,
    (LifeState.HOLDING, LifeEvent.STOP): LifeState.STOPPING,
    # A stop refuses the deploy that held the daemon, which lets go of it.
    (LifeState.STOPPING, LifeEvent.RELEASE): LifeState.STOPPING,
}


class Life:
    """The daemon's state. ``note``: what happened last, in words, for ``status``.

    ``changed``: the state or the note has changed.
    """

    def __init__(self, state: LifeState = LifeState.STARTING) -> None:
        self.state = state
        self._note = ""
        self.changed: Notice[[]] = Notice()

    def take(self, event: LifeEvent) -> None:
        self.state = after(LIFE, self.state, event)
        self.changed()

    @property
    def note(self) -> str:
        return self._note

    @note.setter
    def note(self, words: str) -> None:
        self._note = words
        self.changed()

    @property
    def may_dispatch(self) -> bool:
        """Tasks are claimed and workers asked for."""
        return self.state is LifeState.SERVING

    @property
    def is_up(self) -> bool:
        """A revision serves: clients are answered, due tasks queued, lost tasks recovered."""
        return self.state in (LifeState.SERVING, LifeState.HOLDING)

    @property
    def is_adopting(self) -> bool:
        """It is not decided yet which image serves: nothing is written and no child reaped."""
        return self.state is LifeState.ADOPTING

    @property
    def is_stopping(self) -> bool:
        return self.state is LifeState.STOPPING
