"""A key whose task a taskd of 0.2 has ended, which knows of none that waits behind it."""

from __future__ import annotations

import sqlite3

from submits import new

from taskd.protocol.submission import REPLACE
from taskd.store.api import Offer, Prepare, Take
from taskd.store.sqlite import SqliteStore
from taskd.store.values import Kind

TAKE = Take("q", {Kind("t", None): 1}, {}, (Offer(b"w", 1, "r1"),), 1 << 20, 2.0)


def test_what_0_2_has_left_behind_is_let_go(store: SqliteStore, path: str) -> None:
    (made,) = store.apply(store.last() + 1, [new(key="k")])
    store.apply(store.last() + 1, [TAKE])
    (behind,) = store.apply(store.last() + 1, [new(key="k", if_exists=REPLACE)])
    raw = sqlite3.connect(path)
    raw.execute("update tasks set state = 'succeeded', ended = 1 where id = ?", (made.result.task,))
    raw.execute("update counts set state = 'succeeded' where state = 'running'")
    raw.commit()
    (applied,) = store.apply(store.last() + 1, [Prepare(0.0)])
    assert applied.also == (behind.result.task,)
    found = raw.execute("select state, key from tasks where id = ?", applied.also).fetchone()
    raw.close()
    assert found == ("queued", "k")
