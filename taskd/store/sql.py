"""The statements of the writing side of the SQLite store (see ``operations``)."""

from __future__ import annotations

from taskd.store import schema
from taskd.store.rows import COLUMNS

SUBMISSION = (
    "select s.task, coalesce(t.owner, p.owner) from submissions s"
    " left join tasks t on t.id = s.task left join purged p on p.task = s.task"
    " where s.submission = ?"
)
KEY = (
    "select t.id, t.name, t.state, a.value"
    " from tasks t indexed by tasks_key join arguments a on a.task = t.id"
    f" where t.owner = ? and t.key = ? and t.{schema.LIVE}"
)
NEW_TASK = (
    "insert into tasks (owner, queue, state, priority, run_at, retries_allowed, group_id, name,"
    " version, on_deploy, submitted, key, turn, retries_said, promised, expires_in, expires,"
    " timeout, next_key, next_at, waits_for, if_failed, not_before, limits)"
    " values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
NEW_SUBMISSION = "insert into submissions (submission, task) values (?, ?)"
NEW_EVENT = (
    "insert into events (task, at, state, attempt, revision, reason) values (?, ?, ?, ?, ?, ?)"
)
LOOK = (
    "select id, owner, name, version, queue, state, attempt, key, revision, cancel_wished,"
    " saved_version, group_id, priority, worker, waits_for from tasks where id = ?"
)
CLAIM = (
    "update tasks set state = ?, attempt = ?, worker = ?, revision = ?, reason = null,"
    " started = coalesce(started, ?) where id = ?"
)
TAKEN = (
    f"select {COLUMNS}, a.value, s.value, t.group_id from tasks t join arguments a on a.task = t.id"
    " left join saved s on s.task = t.id where t.id = ?"
)
SETTLE = (
    "update tasks set state = ?, run_at = ?, ended = ?, worker = null, reason = ?, error = ?,"
    " progress = coalesce(?, progress), retries = ?, crashes = ?, interruptions = ?, put_off = ?,"
    " saved_version = ?, group_id = ?, turn = ?, blocked = null, used = ?, used_upto = attempt,"
    " moves = iif(?, iif(moves = attempt - 1, attempt, null), iif(?, attempt, null)) where id = ?"
)
END = "update tasks set state = ?, run_at = null, ended = ?, reason = null where id = ?"
RETRY = (
    "update tasks set state = ?, ended = null, reason = null, error = null, cancel_wished = 0,"
    " retries = 0, crashes = 0, interruptions = 0, put_off = 0, expires = null, used = null,"
    " waits_for = null, blocked = null, moves = null, turn = ? where id = ?"
)
HOLD = "update tasks set state = ?, reason = ? where id = ?"
WAKE = (
    "update tasks set state = ?, run_at = null, blocked = null, moves = null, turn = ? where id = ?"
)
DUE = (
    f"select id from tasks indexed by tasks_scheduled where {schema.SCHEDULED} and run_at <= ?"
    " order by run_at limit ?"
)
SHIFT = (
    "update tasks indexed by tasks_scheduled set run_at = run_at + ?"
    f" where {schema.SCHEDULED} and run_at is not promised and not {schema.FOR_OTHERS}"
)
TIMED_OUT = (
    "update tasks set timed_out = attempt where id = ? and attempt = ? and state = 'running'"
)
SILENT = "update tasks set silent = attempt where id = ? and silent is not attempt"
NOT_SILENT = "update tasks set silent = null where id = ?"
LAPSED = (
    f"select id from tasks indexed by tasks_expiring where {schema.EXPIRING}"
    " and expires <= store_clock() order by expires limit ?"
)
EXPIRES_IN = "select expires_in from tasks where id = ?"
EXPIRE = (
    "update tasks set state = ?, run_at = null, ended = ?, reason = ?, expires = null where id = ?"
)
SHIFT_EXPIRY = (
    f"update tasks indexed by tasks_expiring set expires = expires + ? where {schema.EXPIRING}"
)
SHIFT_KEYS = "update keys set until = until + ?"
WAITS_NO_MORE = "update edges set met = 0 where task = ? and met is null"
"""A task has ended without having waited to the end (see ``ordering``)."""

KEEP = (
    "insert into saved (task, value) values (?, ?)"
    " on conflict (task) do update set value = excluded.value"
)
SIZE = "select length(value) from arguments where task = ?"
LAST = "select batch from owners_as_of where id = 1"
OUTCOME = "select outcomes from owners_as_of where id = 1 and batch = ?"
