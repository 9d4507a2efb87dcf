"""The life of a revision's zygote, as its master knows it.

    absent ──spawn──▶ starting ──hello──▶ connected ⇄ lost (its connection ended; it looks for us)
                          │                   │        │
                          └──────retire───────┴────────┴──▶ retiring

Every state but ``absent`` leads back to ``absent`` by the process's death, and only by that: the
end of a connection proves nothing. A zygote that a master before this one has left begins as
``lost``.
"""

from enum import Enum


class ZygoteState(Enum):
    ABSENT = "absent"
    STARTING = "starting"
    CONNECTED = "connected"
    LOST = "lost"
    RETIRING = "retiring"


class ZygoteEvent(Enum):
    SPAWN = "spawn"
    HELLO = "hello"
    LOSE = "lose"
    RETIRE = "retire"
    DIED = "died"


ZYGOTES = {
    (ZygoteState.ABSENT, ZygoteEvent.SPAWN): ZygoteState.STARTING,
    (ZygoteState.STARTING, ZygoteEvent.HELLO): ZygoteState.CONNECTED,
    (ZygoteState.LOST, ZygoteEvent.HELLO): ZygoteState.CONNECTED,
    (ZygoteState.RETIRING, ZygoteEvent.HELLO): ZygoteState.RETIRING,
    (ZygoteState.CONNECTED, ZygoteEvent.LOSE): ZygoteState.LOST,
    (ZygoteState.RETIRING, ZygoteEvent.LOSE): ZygoteState.RETIRING,
    (ZygoteState.STARTING, ZygoteEvent.RETIRE): ZygoteState.RETIRING,
    (ZygoteState.CONNECTED, ZygoteEvent.RETIRE): ZygoteState.RETIRING,
    (ZygoteState.LOST, ZygoteEvent.RETIRE): ZygoteState.RETIRING,
    (ZygoteState.STARTING, ZygoteEvent.DIED): ZygoteState.ABSENT,
    (ZygoteState.CONNECTED, ZygoteEvent.DIED): ZygoteState.ABSENT,
    (ZygoteState.LOST, ZygoteEvent.DIED): ZygoteState.ABSENT,
    (ZygoteState.RETIRING, ZygoteEvent.DIED): ZygoteState.ABSENT,
}
