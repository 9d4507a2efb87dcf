"""The store's contract about new tasks: a part of ``api``, whose rules hold here as well."""

from __future__ import annotations

from taskd.model.order import IfFailed
from taskd.model.task import OnDeploy
from taskd.protocol.submission import JOIN
from taskd.record import Record

HORIZON = 7 * 86400.0
"""Seconds for which a submission can be sent again: no client tries for longer."""


REPLACED, REMOVED = "replaced", "removed"
"""What it has done then; REMOVED: that task is gone and still has the key."""


class Share(Record):
    """How many tasks that are not over one owner may have in the store, and how many bytes of their
    arguments, each with the new task; None: no limit. ``full``: why no owner may add a task just
    now."""

    tasks: int | None
    bytes: int | None
    full: str | None = None


class Parent(Record):
    """Whose child a new task is: of this ``attempt`` of ``task``, by a ``name`` of its own among
    that task's children; ``detached``: a cancel of the parent does not reach it."""

    task: int
    attempt: int
    name: str
    detached: bool = False


class Submit(Record):
    """A new task: queued, or scheduled if ``delay`` (seconds) is above zero or ``due`` (Unix
    seconds) has not come. Result: Submitted.

    If the submission id is known, the result is the task that it has led to (which may have been
    purged), whatever else is submitted, and nothing is changed; refused if that task is another
    owner's. Else it is refused with TooOld if it was ``made`` longer than HORIZON ago (None: the id
    does not say when): it may have been known once. Else, if one of the
    owner's tasks that are not over has the ``key`` (the empty string is one), ``if_exists`` says
    what comes of it. JOIN: the result is that task, and the submission id is kept with it; refused
    with KeyConflict if the task has another name or other bytes of arguments, and with LimitReached
    if ``share`` is full, since a submission id takes room. REFUSE: refused with KeyConflict.
    REPLACE: the same task gets these arguments, ``delay`` or ``due``, and ``expires``, if it has
    never begun and is queued or scheduled (a queued one stays so); a delay puts it off until
    ``at_most`` seconds after it was submitted (None: ten such delays). Else the task that waits
    behind it gets them; if none does, the new task is *behind*: scheduled for NEVER, without its
    key, until the first is over; then, in that transaction, it gets the key, and is queued or
    scheduled as it was submitted (Applied.also). Refused with KeyConflict for another name.

    ``key_for``: for so many seconds from now, by the store's clock, the key is this task's also
    once that has succeeded or was removed, but not once it has failed or was cancelled.

    ``named``: for so many seconds from now the submission id is known, also once its task was
    removed (then ``Submitted.how`` is REMOVED).

    Else the task is new: refused with LimitReached if it is beyond
    ``share`` (None: no limits), and if a value cannot be stored (an integer of more than 64 bits, a
    text that is no UTF-8).

    ``retries``: what the task's code says, for 0.2, which goes by nothing else; ``retries_said``:
    what the submission itself says, which then stands in the row as both.

    ``due``: the date, in place of a ``delay``, as a promise that no Shift moves; queued if it has
    come. ``expires``: after so many seconds without a start no Take takes it, and CancelExpired
    cancels it; a Retry ends that. ``timeout``: seconds that one try may run, for the master.

    ``after``: it is scheduled, and becomes ready (or due, by ``delay`` or ``due``) in the
    transaction that ends the last of these tasks, or by GoOn soon after. ``if_failed``: what the
    end of one that has failed or was cancelled does; see ``model.order``. What has ended already
    counts as if it ended now. Refused with UnknownTask if one is not there, or is another owner's
    and ``after_any`` is not set.
    ``limits``: the keys that it carries (see ``limit_api``), in order, without line feeds.

    ``parent``: if that task has a child of this name, the result is that one. Else the task is its
    child: it is cancelled if its parent is, unless its key has found it. Refused if that attempt of
    the parent does not run, or the parent is to be cancelled; and as in ``after``.
    """

    submission: bytes
    owner: int
    name: str
    version: int
    args: bytes
    shape: str
    queue: str
    priority: int
    key: str | None
    delay: float | None
    retries: int
    on_deploy: OnDeploy | None
    at: float
    share: Share | None = None
    retries_said: int | None = None
    made: float | None = None
    due: float | None = None
    expires: float | None = None
    timeout: float | None = None
    if_exists: str = JOIN
    key_for: float | None = None
    at_most: float | None = None
    named: float | None = None
    after: tuple[int, ...] = ()
    if_failed: IfFailed = IfFailed.HOLD
    after_any: bool = False
    limits: tuple[str, ...] = ()
    parent: Parent | None = None
    after_new: tuple[int, ...] = ()


class SubmitAll(Record):
    """Several new tasks of one request, as by one Submit after the other (a later one finds the
    key of an earlier one); but if one is refused, so are all, and nothing of any is kept. A task is
    to run after those, too, that have the places ``after_new`` in ``tasks``, before its own; it is
    refused with others, and outside of SubmitAll.

    Result: a list of Submitted, in order, or the refusal of that one.
    """

    tasks: tuple[Submit, ...]


class Submitted(Record):
    """``created`` is False when the submission id or the key found an earlier task; ``how``:
    REPLACED or REMOVED, if the key did and it is more than that."""

    task: int
    created: bool
    how: str | None = None
