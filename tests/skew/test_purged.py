"""A store that 0.2 made is purged by this version, and 0.2's own code goes on with what is left."""

from __future__ import annotations

import sqlite3
import subprocess
from pathlib import Path

from pythons import NEW, OLD, Python
from test_store import lived

PURGE = """
import sys
from taskd.store.api import Forget, Prepare, Purge, Submit
from taskd.store.sqlite import SqliteStore

store = SqliteStore(sys.argv[1], lambda: 2e9)
grace = store.apply(store.last() + 1, [Prepare(100.0)])[0].result
again = SqliteStore(sys.argv[1], lambda: 2e9 + 40)
left = again.apply(again.last() + 1, [Prepare(100.0)])[0].result
again.close()
ids = tuple(range(1, 1000))
store = SqliteStore(sys.argv[1], lambda: 2e9)
gone = store.apply(store.last() + 1, [Purge(ids, None, 1 << 30)])[0].result
for _ in range(int(sys.argv[2])):
    store.apply(store.last() + 1, [Forget(ids, 99)])
store.close()
print(grace, left, len(gone))
"""


def purged(path: Path, new: Python, forgets: int) -> list[float]:
    words = [new.program, "-P", "-c", PURGE, str(path), str(forgets)]
    done = subprocess.run(words, capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr
    return [float(word) for word in done.stdout.split()]


def exact(path: Path) -> int:
    """The counters are those of the tasks that are there; how many these are."""
    raw = sqlite3.connect(path)
    try:
        counts = raw.execute("select queue, state, tasks from counts where tasks > 0 order by 1, 2")
        real = "select queue, state, count(*) from tasks group by 1, 2 order by 1, 2"
        assert counts.fetchall() == raw.execute(real).fetchall()
        owners = raw.execute("select owner, tasks, bytes from owners order by 1").fetchall()
        live = (
            "select owner, count(*), sum(length(value)) from tasks join arguments on task = id"
            " where state in ('queued', 'scheduled', 'running', 'held') group by 1 order by 1"
        )
        assert owners == raw.execute(live).fetchall()
        for table in ("arguments", "saved", "results"):
            stray = f"select count(*) from {table} where task not in (select id from tasks)"
            assert raw.execute(stray).fetchone() == (0,), table
        assert raw.execute("pragma integrity_check").fetchone() == ("ok",)
        return int(raw.execute("select count(*) from tasks").fetchone()[0])
    finally:
        raw.close()


def test_a_store_of_the_version_before_is_purged_after_a_grace_and_goes_on_under_it(
    tmp_path: Path, old: Python, new: Python
) -> None:
    path = tmp_path / "store.db"
    lived(path, [(old, OLD, 0, 200)])
    before = exact(path)
    grace, left, gone = purged(path, new, forgets=1)  # some of it is still to be forgotten
    assert (grace, left) == (100, 60)
    assert gone > 10
    assert exact(path) == before - gone
    lived(path, [(old, OLD, 200, 300)])
    between = exact(path)
    assert between > before - gone
    lived(path, [(new, NEW, 300, 350)])
    _, _, more = purged(path, new, forgets=100)
    assert more > 0
    exact(path)
    raw = sqlite3.connect(path)
    try:
        stray = "select count(*) from events where task not in (select id from tasks)"
        assert raw.execute(stray).fetchone() == (0,)
        ids = "select count(*) from submissions where task not in (select id from tasks)"
        assert raw.execute(ids).fetchone() == (0,)
        assert raw.execute("select count(*) from purged").fetchone() == (0,)
    finally:
        raw.close()
    lived(path, [(old, OLD, 350, 400)])
    exact(path)
