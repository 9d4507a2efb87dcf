"""The master's event loop, and what every part of the master is built on. Knows no task."""

from taskd.master.loop.callers import Answers, Caller, Gate
from taskd.master.loop.copied import Copied
from taskd.master.loop.deadline import Deadline
from taskd.master.loop.ledger import LOCKS, Entry, Kind, close_on_exec, ledger, open_for_exec
from taskd.master.loop.life import Life, LifeEvent, LifeState
from taskd.master.loop.listeners import ALL, Listeners
from taskd.master.loop.loop import READ, Look, Loop, Timer
from taskd.master.loop.notice import Notice
from taskd.master.loop.statedir import PIDFILE, StateDirectory, take_locks
from taskd.master.loop.storage import Done, Storage
from taskd.master.loop.trouble import (
    LASTS,
    NO_WORKER,
    PASSING,
    UNWRITABLE,
    Seldom,
    Troubles,
    in_words,
)
from taskd.master.loop.wire import Later, Messages, Wire

__all__ = (
    "ALL",
    "Answers",
    "Caller",
    "Copied",
    "Deadline",
    "Done",
    "Entry",
    "Gate",
    "Kind",
    "LASTS",
    "LOCKS",
    "Later",
    "Life",
    "LifeEvent",
    "LifeState",
    "Listeners",
    "Look",
    "Loop",
    "Messages",
    "NO_WORKER",
    "Notice",
    "PASSING",
    "PIDFILE",
    "READ",
    "Seldom",
    "StateDirectory",
    "Storage",
    "Timer",
    "Troubles",
    "UNWRITABLE",
    "Wire",
    "close_on_exec",
    "in_words",
    "ledger",
    "open_for_exec",
    "take_locks",
)
