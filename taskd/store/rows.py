"""A task's row in SQLite: the columns that are read, and how they become ``api.Row``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from taskd.model.task import Budgets, OnDeploy, State
from taskd.protocol import cbor
from taskd.store import schema
from taskd.store.values import Row

COLUMNS = (
    "id, owner, name, version, queue, priority, state, attempt, key, on_deploy,"
    f" iif({schema.FOR_OTHERS} and waits_for > 0, not_before, run_at),"
    " cancel_wished, worker, revision, retries_allowed, retries, crashes, interruptions,"
    " saved_version, reason, error, progress, submitted, started, ended,"
    " retries_said, put_off, iif(attempt = 0 and ended is null, expires, null),"
    " timeout, iif(used_upto = attempt - (state = 'running'), used, null), timed_out = attempt,"
    " next_key, slot,"
    f" iif(state = 'scheduled' and {schema.FOR_OTHERS}, waits_for, 0), if_failed, parent,"
    " iif(state = 'queued', blocked, null)"
)


def row_of(found: Sequence[Any]) -> Row:
    """The row from ``COLUMNS``."""
    return Row._make(
        (
            *found[:6],
            State(found[6]),
            *found[7:9],
            None if found[9] is None else OnDeploy(found[9]),
            found[10],
            bool(found[11]),
            *found[12:15],
            found[25],
            Budgets._make((*found[15:18], found[26] or 0)),
            found[18],
            found[19],
            None if found[20] is None else cbor.loads(found[20]),
            None if found[21] is None else cbor.loads(found[21]),
            *found[22:25],
            *found[27:30],
            bool(found[30]),
            *found[31:33],
            found[33] or 0,
            *found[34:37],
        )
    )
