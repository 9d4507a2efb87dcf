"""What the store tells of a task: its row, its events, what it is alike to."""

from __future__ import annotations

from typing import Any

from taskd.model.task import Budgets, OnDeploy, State
from taskd.record import Record


class Row(Record):
    """A task as the store has it; times are Unix seconds.

    ``version`` is the version of the task function at submission; ``saved_version`` is the version
    of the saved state (None: nothing is saved). ``run_at`` is set only while scheduled, ``worker``
    only while running. ``revision`` ran the last attempt. ``started`` is the first attempt's start.
    ``error`` is the error of the last attempt that ended. A claim clears ``reason``, not ``error``.
    ``retries_allowed``: as the code said at submission; ``retries_said``: as the submission itself
    did, if at all. ``expires``: when it is cancelled, as long as it waits for its first start.
    ``timeout``: seconds that one try may run, as the submission said; ``used``: those that the
    attempts of this try before the one that runs or is to come have run; ``timed_out``: the last
    attempt was told that its time is over. ``next_key``: it is scheduled behind the task that has
    this key, which it gets then. ``slot``: of its schedule, that it is for; None: none.
    ``waits_for``: how many tasks it still waits for, after which it is to run; ``if_failed``: what
    the submission said of these, None if there are none. ``run_at`` of a task that waits so is when
    it will be due at the earliest, if that was said. ``parent``: the task that has submitted it.
    """

    id: int
    owner: int
    name: str
    version: int
    queue: str
    priority: int
    state: State
    attempt: int
    key: str | None
    on_deploy: OnDeploy | None
    run_at: float | None
    cancel_wished: bool
    worker: bytes | None
    revision: str | None
    retries_allowed: int
    retries_said: int | None
    budgets: Budgets
    saved_version: int | None
    reason: str | None
    error: dict[str, Any] | None
    progress: dict[str, Any] | None
    submitted: float
    started: float | None
    ended: float | None
    expires: float | None = None
    timeout: float | None = None
    used: float | None = None
    timed_out: bool = False
    next_key: str | None = None
    slot: float | None = None
    waits_for: int = 0
    if_failed: str | None = None
    parent: int | None = None
    blocked: str | None = None


class Dependency(Record):
    """A task that another one is to run after, and its state (None: it was removed)."""

    task: int
    state: State | None


FIRST, LAST = 5, 50
"""Attempts of a task that are kept: from the first on, and up to the last."""

ERROR_LIMIT = 3000
"""Bytes of each text of an attempt's error; that of the last one stands with the task, whole."""

TEXT_LIMIT = 1000
"""Bytes of an attempt's reason."""


class Attempt(Record):
    """One attempt of a task; what is told of its end is None while it runs. Of each task the FIRST
    and the LAST are kept, their texts cut to ERROR_LIMIT and TEXT_LIMIT bytes.

    ``started`` None: it is not known. ``worker``: whose it was (see ``Offer``). ``how`` it ended:
    one of ``model.task.How``, or of a later version. ``error``: with its texts cut. ``delay``: how
    many seconds later the next attempt was to begin.
    """

    attempt: int
    started: float | None
    ended: float | None
    revision: str | None
    worker: bytes | None
    how: str | None = None
    reason: str | None = None
    error: dict[str, Any] | None = None
    delay: float | None = None


class Event(Record):
    """One state change of one task. ``number`` is exact for the task: each later change of it has a
    higher one. The numbers of two tasks say nothing of which changed first."""

    number: int
    task: int
    at: float
    state: State
    attempt: int
    revision: str | None
    reason: str | None


class Group(Record):
    """How many tasks wait (queued, scheduled or held) that look alike to a new revision.

    ``version`` is the version of the saved state, or the version at submission where nothing is
    saved; ``shape`` is the sorted argument names joined by commas, with a ``*`` behind each that
    holds a Secret; ``example`` is the id of one such task.
    """

    name: str
    version: int
    shape: str
    waiting: int
    example: int


class Kind(Record):
    """What decides which revisions can run a ready task: its name, and the version of its saved
    state (None: nothing is saved)."""

    name: str
    saved_version: int | None


class Scope(Record):
    """What is paused: the tasks of that ``queue``, those of that ``name``, or all ("" and "")."""

    queue: str = ""
    name: str = ""


class Paused(Record):
    """``by``: the user's id; ``at``: since when, ``until``: when it ends by itself (None: it does
    not), in Unix seconds; ``why``: as the user said it, perhaps empty."""

    scope: Scope
    by: int
    at: float
    until: float | None
    why: str


class Scheduled(Record):
    """A schedule, as the store has it. ``timing``, ``kept``: its definition, as TakeUp gave it.
    ``mark``: the newest slot that is decided. ``paused``, ``dropped``: since when; ``by``: who
    paused it.
    ``pending``: a slot that waits for an earlier run. ``catch_up``: how what was missed in a pause
    is decided, once. ``overlaps``: slots in a row that an earlier run has kept from running.
    ``last_slot``: that was run; ``last_task``: of a slot or RunNow, with its ``state`` (None: it
    was removed). ``alive``: its tasks that wait or run. ``skipped``, ``why``: the last fact, if it
    is of slots that were not run."""

    name: str
    timing: str
    kept: bytes
    mark: float
    paused: float | None
    by: int | None
    dropped: float | None
    pending: float | None
    catch_up: str | None
    overlaps: int
    last_slot: float | None
    last_task: int | None
    state: State | None
    alive: tuple[int, ...]
    skipped: float | None
    why: str | None


class Limit(Record):
    """The numbers of all keys of one name (see ``limit_api``). ``concurrency``: tasks that may hold
    a key at once; ``every``: seconds from one first start to the next, of which ``burst`` may come
    at once (None: no such limit). ``source``: who says so, in words. ``dropped``: nobody declares
    it any more, and its numbers go on."""

    name: str
    concurrency: int | None
    every: float | None
    burst: int
    source: str
    dropped: bool = False


class Holder(Record):
    """Who holds a key: a task that runs, or (``moves``) that is on its way to another revision.
    ``since``: when the task first started."""

    task: int
    revision: str | None
    moves: bool
    since: float | None


HOLDERS = 10
"""Holders of a key that are told."""


class Obstacle(Record):
    """Why a ready or blocked task cannot begin now: ``key`` is full. ``limit``: its numbers;
    ``holders``: of these at most HOLDERS, oldest first, of ``held``; ``wait``: seconds until its
    rate lets another start (None: that is not why)."""

    key: str
    limit: Limit
    held: int
    holders: tuple[Holder, ...]
    wait: float | None


class Taken(Record):
    """A task that was taken; ``row`` is as it is now."""

    row: Row
    args: bytes
    saved: bytes | None

    @property
    def task(self) -> int:
        return self.row.id

    @property
    def worker(self) -> bytes:
        """Whose it is."""
        assert self.row.worker is not None, "it runs"
        return self.row.worker
