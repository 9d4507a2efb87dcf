"""What the store acknowledged is there after a kill -9, and again after the next one."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

from support.answers import Reading

from taskd.model.task import State
from taskd.store.queries import Filter
from taskd.store.reader import SqliteReader
from taskd.store.sqlite import SqliteStore

CHILD = str(Path(__file__).with_name("store_child.py"))
KILLS = 20


def acknowledged_until_killed(path: str, lines: int) -> list[tuple[str, int]]:
    """What a child acknowledged that was killed once it had said so many lines."""
    child = subprocess.Popen([sys.executable, CHILD, path], stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        said = [child.stdout.readline() for _ in range(lines)]
        child.kill()
        said += child.stdout.readlines()
    finally:
        child.kill()
        child.communicate()
    assert child.returncode == -9
    words = [line.split() for line in said if line.endswith(b"\n")]
    return [(what.decode(), int(task)) for what, task in words]


def test_what_was_acknowledged_before_a_kill_is_there_after_it(tmp_path: Path) -> None:
    path = os.fspath(tmp_path / "store.db")
    chance = random.Random(1)
    submitted: set[int] = set()
    settled: set[int] = set()
    for _ in range(KILLS):
        for what, task in acknowledged_until_killed(path, chance.randint(1, 200)):
            (submitted if what == "submitted" else settled).add(task)
        check(path, submitted, settled)
    assert len(settled) > KILLS


def check(path: str, submitted: set[int], settled: set[int]) -> None:
    store, reader = SqliteStore(path), Reading(SqliteReader(path))
    try:
        rows = {row.id: row for row in reader.tasks(Filter(limit=1_000_000))}
        assert submitted <= set(rows)
        assert settled <= {task for task, row in rows.items() if row.state is State.SUCCEEDED}
        assert all(reader.result(task) == b"%d" % task for task in settled)
        assert all(len(reader.args(task)) == 300 for task in rows)
        assert reader.counts() == Counter((row.queue, row.state) for row in rows.values())
        waiting = sum(row.state is State.QUEUED for row in rows.values())
        assert sum(group.waiting for group in reader.groups()) == waiting
    finally:
        reader.close()
        store.close()
