"""Stores with a million tasks, made by SQL: by a daemon they would take hours."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing

from taskd.store.sqlite import SqliteStore

_TASKS = """
insert into tasks (owner, queue, state, priority, retries_allowed, group_id, name, version,
    submitted, turn, attempt, started, ended, revision)
with recursive n(i) as (select 1 union all select i + 1 from n where i < :count)
select 1000, 'default', :state, :priority, 0, :group, :name, 1, 1.0,
    case :state when 'queued' then i end, case :state when 'queued' then 0 else 1 end,
    case :state when 'queued' then null else 2.0 end,
    case :state when 'queued' then null else 3.0 end,
    case :state when 'queued' then null else 'r1' end from n
"""

_EVENTS = """
insert into events (task, at, state, attempt, revision)
select id, {at}, '{state}', {attempt}, {revision} from tasks where state = :state
"""


def add(path: str, state: str, count: int, name: str = "nothing", priority: int = 0) -> None:
    """``count`` tasks more, queued or succeeded, with all that the store has of such tasks."""
    if not os.path.exists(path):
        SqliteStore(path).close()
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("pragma synchronous = off")
        raw.execute("pragma journal_mode = off")
        raw.execute("pragma cache_size = -400000")
        before = raw.execute("select coalesce(max(id), 0) from tasks").fetchone()[0]
        waiting = count if state == "queued" else 0
        raw.execute(
            "insert into groups_waiting (name, version, shape, waiting) values (?, 1, 'n', ?)",
            (name, waiting),
        )
        group = raw.execute("select max(id) from groups_waiting").fetchone()[0]
        given = {"count": count, "state": state, "priority": priority, "name": name, "group": group}
        raw.execute(_TASKS, given)
        tables = {"arguments": "id, x'a1616e01'", "submissions": "randomblob(16), id"}
        if state == "succeeded":
            tables["results"] = "id, x'f6'"
        for table, values in tables.items():
            raw.execute(f"insert into {table} select {values} from tasks where id > ?", [before])
        changes = [("1.0", "queued", "0", "null")]
        if state == "succeeded":
            changes += [("2.0", "running", "1", "'r1'"), ("3.0", "succeeded", "1", "'r1'")]
        for at, became, attempt, revision in changes:
            sql = _EVENTS.format(at=at, state=became, attempt=attempt, revision=revision)
            raw.execute(sql + " and id > :before", {"state": state, "before": before})
        raw.execute(
            "insert into counts values ('default', ?, ?)"
            " on conflict (queue, state) do update set tasks = tasks + excluded.tasks",
            (state, count),
        )
        raw.execute(
            "insert into owners values (1000, ?, ? * 4) on conflict (owner) do update"
            " set tasks = tasks + excluded.tasks, bytes = bytes + excluded.bytes",
            (waiting, waiting),
        )
        raw.execute("update owners_as_of set event = (select max(number) from events)")
        raw.commit()
