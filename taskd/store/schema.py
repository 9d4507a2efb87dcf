"""The tables of the SQLite store, version ``api.SCHEMA``, and how a file comes to have them.

Runs in the master. This module is the only definition of the format on disk; ``user_version``
carries its version and ``application_id`` says that the file is ours. A later taskd may add tables,
and columns that may be null, without a new version: an older taskd ignores them, so that a rollback
finds a store that it can use. A new version says that an older taskd could not.

* ``tasks``: one row a task, small: what is claimed, settled and listed. What only some states
  have (reason, error, progress) stands at the row's end, where a long one spills over into pages
  of its own. Ids and event numbers are never used twice (AUTOINCREMENT).
* ``arguments``, ``saved``, ``results``: bytes of up to many MiB, each kind in a table of its own,
  so that a claim rewrites none of them and a saved state rewrites no arguments. Measured: with
  20 KB of arguments in the task's own row, claim and settle are 2.6 times slower; with 200 bytes
  there is no difference beyond the noise. The four indexes for lists cost a fifth of a submit.
* ``submissions``: the submission ids that were acknowledged, and the task each led to.
* ``purged``: tasks that were removed and of which something is left. ``is_left``: files outside the
  store, events; then only submission ids, which are kept up to ``until``. ``retention``: since when
  tasks may be removed for their age, as of the first Prepare; null: always.
* ``attempts``: how the first and the last attempts of each task ended (see ``attempts``).
* ``events``: each state change, numbered over all tasks.
* ``counts``: tasks by (queue, state), without rows for none; ``groups_waiting``: waiting tasks by
  (name, version, shape). Both are exact after every commit (see ``tally``). Rows of groups stay
  when they are empty: tasks that have left point at them for their shape.
* ``pauses``: the queues and names of which no task is taken (see ``pausing``). ``tasks.moves``: the
  number of the attempt that left to go on elsewhere, if that was the last. ``tasks.promised``: the
  date that the submission named; ``run_at`` is that date no longer once the task waits for another.
  ``tasks.expires``: when it is cancelled if it has not started, ``expires_in`` seconds after it was
  submitted; of no meaning once it has (see ``expiry``). ``tasks.timeout``: seconds that one try may
  run, as the submission said; ``tasks.used``: those that the attempts of this try up to number
  ``used_upto`` have run; ``tasks.timed_out``: the number of the attempt that was told that its time
  is over; ``tasks.silent``: of the one of which it was told that it reports nothing. (Numbers,
  since 0.2 begins attempts and retries and leaves these columns as they are.)
* ``concurrency``: what operators have said of queues for now (see ``concurrency``).
* ``named``: the named submission ids, until they are forgotten, also of tasks that are gone.
* ``keys``, ``tasks.next_key``, ``tasks.next_at``: see ``keys``.
* ``tasks.limits``: the keys that the task carries, a line each; ``tasks.blocked``: the one that
  keeps a queued task from being ready, of no meaning in another state. ``limits``, ``limit_rates``,
  ``limit_waits``: see ``limiting``. 0.2 sees a blocked task as a queued one.
* ``schedules``, ``slots``, ``schedule_tasks``: see ``scheduling``. ``tasks.schedule``: which one
  has submitted it; ``tasks.slot``: for which slot, if for one.
* ``edges``: which task waits for which (``waits_on``), ``ends``: ends of which those that wait are
  still to be told; ``tasks.waits_for``, ``tasks.if_failed``, ``tasks.not_before`` (when it is due
  once it waits no more): see ``ordering``.
* ``children``, ``downs``, ``tasks.parent``, ``tasks.generation``: see ``family``.
* ``owners``: how many tasks and bytes of arguments each user has that are not over (see
  ``tally``); ``owners_as_of``: the number of the last event, by which 0.2 knows that ``owners`` is
  exact. That row is written by every commit, so it also has the number of our last ``batch`` and
  the ``outcomes`` of its operations (see ``outcomes``): a row in a table of its own would be one
  more page in each commit, a tenth of a small one. 0.2 leaves both as they are: after it has
  written, our last batch is still that one, and the process that could ask for its outcomes is
  gone.

Foreign keys are not declared: one process writes, all writes stand in this room, and each check
would be one more look-up in every submit.

Indexes: a claim reads ``tasks_kind`` alone, so that neither scheduled tasks nor finished ones nor
those of a kind that cannot be run here can slow it (see ``picking``); ``tasks_turn`` and
``tasks_last_turn`` find the first turn in a queue and the last one of an owner there (see
``turns``); ``tasks_state`` serves the running rows and lists by state; ``counts_not_empty`` finds
the queues with tasks to run, however many queues there ever were; ``tasks_ended`` finds what has
been over for longest (see ``expiring``), ``submissions_task`` the submission ids of a task;
``tasks_expiring`` has the tasks that expire unless they start.
``tasks_ready`` serves no query: it stays because 0.2 names it.
"""

from __future__ import annotations

import sqlite3

from taskd import errors
from taskd.model.task import State
from taskd.store.api import SCHEMA

APPLICATION_ID = 0x7461736B  # "task"

LARGEST = (1 << 63) - 1
"""SQLite's largest integer."""

WAITING_STATES = frozenset({State.QUEUED, State.SCHEDULED, State.HELD})
"""What groups count: tasks that a new revision must be able to take."""

# SQLite uses a partial index only for a query that repeats the index's condition word for word.
READY = "state = 'queued'"
OPEN = "state = 'queued' and blocked is null"
BLOCKED = "state = 'queued' and blocked is not null"
SCHEDULED = "state = 'scheduled'"
FAR = 1e11
"""When what waits for other tasks is due: never (in the year 5138)."""

FOR_OTHERS = f"run_at >= {FAR / 2:.0f}"

WAITING = "state in ('queued', 'scheduled', 'held')"
MOVING = "state = 'queued' and moves is not null"
NOT_EMPTY = "tasks > 0"
LIVE = "state in ('queued', 'scheduled', 'running', 'held')"
BEHIND = "state = 'scheduled'"
IS_AWAITED = (
    "(exists (select 1 from edges indexed by edges_open where waits_on = tasks.id and met is null)"
    f" or exists (select 1 from tasks p where p.id = tasks.parent and p.{LIVE}))"
)

EXPIRING = f"expires is not null and attempt = 0 and {WAITING}"

_TABLES = f"""
create table tasks (
    id integer primary key autoincrement,
    owner integer not null,
    queue text not null,
    state text not null,
    priority integer not null,
    attempt integer not null default 0,
    run_at real,
    cancel_wished integer not null default 0,
    retries_allowed integer not null,
    retries integer not null default 0,
    crashes integer not null default 0,
    interruptions integer not null default 0,
    group_id integer not null,
    name text not null,
    version integer not null,
    saved_version integer,
    on_deploy text,
    submitted real not null,
    started real,
    ended real,
    worker blob,
    revision text,
    key text,
    reason text,
    progress blob,
    error blob,
    turn integer
);
create index tasks_ready on tasks (queue, priority desc, id) where {READY};
create index tasks_scheduled on tasks (run_at) where {SCHEDULED};
create index tasks_waiting on tasks (group_id) where {WAITING};
create unique index tasks_key on tasks (owner, key) where key is not null and {LIVE};
create index tasks_state on tasks (state, id);
create index tasks_owner on tasks (owner, id);
create index tasks_name on tasks (name, id);
create index tasks_queue on tasks (queue, id);
create index tasks_turn on tasks (queue, priority desc, turn, id) where {READY};
create index tasks_last_turn on tasks (queue, owner, priority, attempt > 0, turn) where {READY};

create table arguments (task integer primary key, value blob not null);
create table saved (task integer primary key, value blob not null);
create table results (task integer primary key, value blob not null);

create table submissions (
    submission blob primary key,
    task integer not null
) without rowid;

create table events (
    number integer primary key autoincrement,
    task integer not null,
    at real not null,
    state text not null,
    attempt integer not null,
    revision text,
    reason text
);
create index events_task on events (task, number);

create table counts (
    queue text not null,
    state text not null,
    tasks integer not null,
    primary key (queue, state)
) without rowid;

create table groups_waiting (
    id integer primary key,
    name text not null,
    version integer not null,
    shape text not null,
    waiting integer not null default 0,
    unique (name, version, shape)
);
create index groups_not_empty on groups_waiting (id) where waiting > 0;
create index counts_not_empty on counts (state, queue) where {NOT_EMPTY};

create table owners (
    owner integer primary key,
    tasks integer not null,
    bytes integer not null
);
create table owners_as_of (
    id integer primary key check (id = 1),
    event integer not null
);
insert into owners_as_of (id, event) values (1, 0);
"""

_ADDED = {
    "owners_as_of.batch": "alter table owners_as_of add column batch integer",
    "owners_as_of.outcomes": "alter table owners_as_of add column outcomes blob",
    "tasks.retries_said": "alter table tasks add column retries_said integer",
    "tasks.put_off": "alter table tasks add column put_off integer",
    "attempts": "create table attempts (task integer not null, attempt integer not null,"
    " started real, ended real not null, revision text, worker blob, how text not null,"
    " reason text, error blob, delay real, primary key (task, attempt)) without rowid",
    "tasks.moves": "alter table tasks add column moves integer",
    "tasks.promised": "alter table tasks add column promised real",
    "tasks.expires": "alter table tasks add column expires real",
    "tasks.expires_in": "alter table tasks add column expires_in real",
    "tasks.timeout": "alter table tasks add column timeout real",
    "tasks.used": "alter table tasks add column used real",
    "tasks.used_upto": "alter table tasks add column used_upto integer",
    "tasks.timed_out": "alter table tasks add column timed_out integer",
    "tasks.silent": "alter table tasks add column silent integer",
    "tasks_expiring": f"create index tasks_expiring on tasks (expires) where {EXPIRING}",
    "tasks.schedule": "alter table tasks add column schedule text",
    "tasks.slot": "alter table tasks add column slot real",
    "schedules": "create table schedules (name text primary key, definition blob not null,"
    " timing text not null, mark real not null, paused real, by integer, dropped real,"
    " pending real, catch_up text, overlaps integer not null default 0, last_slot real,"
    " last_task integer) without rowid",
    "slots": "create table slots (schedule text not null, slot real not null, at real not null,"
    " task integer, reason text, through real, slots integer, primary key (schedule, slot))"
    " without rowid",
    "schedule_tasks": "create table schedule_tasks (schedule text not null, task integer not null,"
    " primary key (schedule, task)) without rowid",
    "tasks.waits_for": "alter table tasks add column waits_for integer",
    "tasks.if_failed": "alter table tasks add column if_failed text",
    "tasks.not_before": "alter table tasks add column not_before real",
    "edges": "create table edges (task integer not null, waits_on integer not null, met integer,"
    " primary key (task, waits_on)) without rowid",
    "edges_open": "create index edges_open on edges (waits_on, task) where met is null",
    "tasks.parent": "alter table tasks add column parent integer",
    "tasks.generation": "alter table tasks add column generation integer",
    "children": "create table children (parent integer not null, generation integer not null,"
    " name text not null, task integer not null, tied integer not null,"
    " primary key (parent, generation, name)) without rowid",
    "children_task": "create index children_task on children (parent, task)",
    "downs": "create table downs (parent integer primary key, generation integer not null,"
    " told integer not null)",
    "ends": "create table ends (task integer primary key, told integer not null)",
    "tasks_moving": f"create index tasks_moving on tasks (queue, id) where {MOVING}",
    "pauses": "create table pauses (queue text not null, name text not null, by integer not null,"
    " at real not null, until real, why text not null, primary key (queue, name)) without rowid",
    "tasks.limits": "alter table tasks add column limits text",
    "tasks.blocked": "alter table tasks add column blocked text",
    "tasks_kind": "create index tasks_kind"
    f" on tasks (queue, name, saved_version, priority desc, turn, id) where {OPEN}",
    "tasks_blocked": "create index tasks_blocked"
    f" on tasks (blocked, queue, name, priority desc, turn, id) where {BLOCKED}",
    "limits": "create table limits (name text primary key, concurrency integer, every real,"
    " burst integer not null, source text not null, dropped integer not null default 0)"
    " without rowid",
    "limit_rates": "create table limit_rates (key text primary key, next real not null)"
    " without rowid",
    "limit_rates_next": "create index limit_rates_next on limit_rates (next)",
    "limit_waits": "create table limit_waits (key text primary key, at real not null)"
    " without rowid",
    "limit_waits_at": "create index limit_waits_at on limit_waits (at)",
    "tasks.next_key": "alter table tasks add column next_key text",
    "tasks.next_at": "alter table tasks add column next_at real",
    "tasks_next_key": "create unique index tasks_next_key on tasks (owner, next_key)"
    f" where next_key is not null and {BEHIND}",
    "concurrency": "create table concurrency (queue text primary key, tasks integer not null,"
    " by integer not null, at real not null, until real, why text not null) without rowid",
    "keys": "create table keys (owner integer not null, key text not null, task integer not null,"
    " until real not null, name text not null, args blob not null, primary key (owner, key))"
    " without rowid",
    "named": "create table named (submission blob primary key, task integer not null,"
    " owner integer not null, until real not null) without rowid",
    "named_until": "create index named_until on named (until)",
    "keys_until": "create index keys_until on keys (until)",
    "keys_task": "create index keys_task on keys (task)",
    "purged": "create table purged (task integer primary key, owner integer not null,"
    " until real not null, is_left integer not null default 1)",
    "purged_left": "create index purged_left on purged (task) where is_left = 1",
    "purged_until": "create index purged_until on purged (until) where is_left = 0",
    "retention": "create table retention (id integer primary key check (id = 1), since real)",
}
"""What 0.2 does not make, by name (table, index, TABLE.COLUMN); added where it is missing."""

_LATER = {
    "tasks_ended": "create index tasks_ended on tasks (state, queue, ended)"
    " where ended is not null",
    "submissions_task": "create index submissions_task on submissions (task)",
}
"""The same, but over all tasks there ever were, which takes too long for a deploy: ``finish``."""

_SINCE_EVER = "insert into retention (id, since) values (1, null)"


def is_id(number: int) -> bool:
    """Whether a number from outside can be a task's id at all. A larger one than LARGEST does not
    even fit into a query."""
    return 0 < number <= LARGEST


def check(connection: sqlite3.Connection, path: str) -> int:
    """The schema version of the file, 0 for an empty one. Raises errors.StoreError if not ours."""
    version = int(connection.execute("pragma user_version").fetchone()[0])
    owner = connection.execute("pragma application_id").fetchone()[0]
    if (
        owner == 0
        and version == 0
        and not connection.execute("pragma schema_version").fetchone()[0]
    ):
        return 0
    if owner != APPLICATION_ID:
        raise errors.StoreError(
            f"{path} is a database, but not a taskd store; move it away, or name another state "
            "directory"
        )
    if version > SCHEMA:
        raise errors.StoreError(
            f"the store {path} has schema {version}, this taskd knows schemas up to {SCHEMA}; "
            "start the newer taskd that wrote it (nothing was changed)"
        )
    return version


def create(connection: sqlite3.Connection) -> None:
    """Make the tables in an empty file: all of them or none."""
    _make(connection, _TABLES, *_ADDED.values(), *_LATER.values(), _SINCE_EVER)


def grow(connection: sqlite3.Connection) -> None:
    """Add what an earlier version has not made in this file: all of it or none."""
    missing = _missing(connection, _ADDED)
    if missing:
        _make(connection, *missing)


def is_grown(connection: sqlite3.Connection) -> bool:
    """Whether nothing is left for ``grow`` to add."""
    return not _missing(connection, _ADDED)


def finish(connection: sqlite3.Connection) -> None:
    """Add, in the open transaction, what ``grow`` had no time for."""
    for statement in _missing(connection, _LATER):
        connection.execute(statement)


def _missing(connection: sqlite3.Connection, wanted: dict[str, str]) -> list[str]:
    names = {
        name
        for row in connection.execute(
            "select s.name, s.name || '.' || c.name"
            " from sqlite_schema s left join pragma_table_info(s.name) c"
        )
        for name in row
    }
    return [made for name, made in wanted.items() if name not in names]


def _make(connection: sqlite3.Connection, *parts: str) -> None:
    connection.execute("begin immediate")
    for part in parts:
        for statement in filter(str.strip, part.split(";")):
            connection.execute(statement)
    connection.execute(f"pragma application_id = {APPLICATION_ID}")
    connection.execute(f"pragma user_version = {SCHEMA}")
    connection.execute("commit")
