"""One store, used by this version and the one before in turns: each finds it exact.

0.2's own wheel runs on what this version leaves, and the other way round.
"""

from __future__ import annotations

import random
import sqlite3
import subprocess
from pathlib import Path

import pytest
from pythons import NEW, OLD, Python

STORY = """
import random, sqlite3, sys
from taskd import __version__
from taskd.errors import Error
from taskd.model.task import Budgets, OnDeploy, State
from taskd.store import api
from taskd.store.api import (
    Cancel,
    Retry,
    Settle,
    Share,
    Shift,
    Submit,
    SubmitAll,
    Wake,
)
from taskd.store.reader import SqliteReader
from taskd.store.sqlite import SqliteStore

path, version, first, last = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
assert __version__ == version, __version__
now = [0]
if version == "0.2.0":
    store, reader = SqliteStore(path), SqliteReader(path)
else:
    store, reader = SqliteStore(path, lambda: now[0]), SqliteReader(path)

if version == "0.2.0":
    def ready(queue):
        return [row.id for row in reader.ready(queue, 99)]

    def claimed(queue, worker, at):
        return api.Claim(*ready(queue)[:1] or [10**6], worker, "r1", at)

    def held(task, queue, name, saved_version, at):
        return api.Hold(task, "why", at)
else:
    from taskd.store.queries import Ready
    from taskd.store.values import Kind
    found = []

    class EveryKind(dict):
        __contains__ = lambda self, kind: True
        __getitem__ = get = lambda self, kind: 1

    def ready(queue):
        reader.ask(Ready("", {queue: 99}, 0, EveryKind(), {}, 99), found.append)
        return [candidate.task for _, candidate in found.pop().found[0].tasks]

    def claimed(queue, worker, at):
        first = {task: 1 for task in ready(queue)[:1]}
        return api.Take(queue, {}, first, (api.Offer(worker, 1, "r1"),), 1, at)

    def held(task, queue, name, saved_version, at):
        return api.HoldKind(queue, Kind(name, saved_version), "why", 1, at)

def apply(operations):
    if version != "0.2.0":
        store.apply(store.last() + 1, operations)
    else:
        store.apply(operations)

def later(at, seconds):
    # 0.2 is told a date.
    return at + seconds if version == "0.2.0" else seconds

def new(dice, number):
    return Submit(
        dice.randbytes(16), dice.randrange(3), dice.choice("abc"), 1, dice.randbytes(9), "x",
        dice.choice("pq"), dice.randrange(2), f"k{number}" if dice.random() < 0.2 else None,
        later(number, number) if dice.random() < 0.3 else None, 3, None, number,
        Share(12, None) if dice.random() < 0.5 else None,
    )

def ended(dice, task, attempt, at):
    state = dice.choice([s for s in State if s not in (State.RUNNING,)])
    more = {}
    if state is State.SUCCEEDED:
        more = {"result": b"\\xf6"}
    elif state is State.FAILED:
        more = {"error": {"type": "E", "message": "m", "traceback": "t"}, "reason": "E: m"}
    elif state is State.SCHEDULED:
        more = {"saved": b"saved", "saved_version": 2}
        more["run_at" if version == "0.2.0" else "delay"] = later(at, 5)
    elif state is State.QUEUED:
        more = {"saved": dice.choice([b"", b"s", None]), "progress": {"done": 1, "total": 2}}
    budgets = Budgets(dice.randrange(2), dice.randrange(2), dice.randrange(2))
    return Settle(task, attempt, state, at, budgets, **more)

def operation(dice, number):
    with sqlite3.connect(path) as raw:
        tasks = raw.execute("select id, state, attempt from tasks").fetchall()
    raw.close()
    by = {state: [t for t in tasks if t[1] == state] for _, state, _ in tasks}
    kind = dice.random()
    if kind < 0.35 or not tasks:
        return new(dice, number)
    if kind < 0.4:
        return SubmitAll(tuple(new(dice, number) for _ in range(3)))
    if kind < 0.6 and by.get("queued"):
        return claimed(dice.choice("pq"), dice.randbytes(9), number)
    if kind < 0.8 and by.get("running"):
        task, _, attempt = dice.choice(by["running"])
        return ended(dice, task, attempt, number)
    if kind < 0.85:
        return Cancel(dice.choice(tasks)[0], None, number)
    if kind < 0.9:
        return Retry(dice.choice(tasks)[0], None, number, Share(12, None))
    if kind < 0.97:
        return Wake(number, 9) if version == "0.2.0" else Wake(9)
    return Shift(-3.0)

def hold_first(queue, number):
    # In a batch of its own: 0.2 holds a task by its number, we the first of its kind.
    for task in ready(queue)[:1]:
        with sqlite3.connect(path) as raw:
            sql = "select id, queue, name, saved_version from tasks where id = ?"
            apply([held(*raw.execute(sql, (task,)).fetchone(), number)])
        raw.close()

for number in range(first, last):
    dice = random.Random(number)
    now[0] = number
    if dice.random() < 0.1:
        hold_first(dice.choice("pq"), number)
        continue
    try:
        apply([operation(dice, number) for _ in range(dice.randrange(1, 3))])
    except ValueError:
        pass  # no attempt ends in that state
print([ready(queue) for queue in "pq"])
with sqlite3.connect(path) as raw:
    print(raw.execute("select * from counts where tasks > 0 order by 1, 2").fetchall())
    print(raw.execute("select * from groups_waiting where waiting > 0 order by id").fetchall())
raw.close()
store.close()
reader.close()
"""


def lived(path: Path, turns: list[tuple[Python, str, int, int]]) -> list[str]:
    """What the store tells after each turn: (a Python, its version, the first step, the last)."""
    told = []
    for python, version, first, last in turns:
        words = [str(path), version, str(first), str(last)]
        done = subprocess.run(
            [python.program, "-P", "-c", STORY, *words], capture_output=True, text=True, cwd="/"
        )
        assert done.returncode == 0, done.stderr
        told.append(done.stdout)
    return told


def contents(path: Path, like: Path | None = None) -> dict[str, list[tuple[object, ...]]]:
    """All rows of each table; ``like``: of the tables and columns alone that this file has."""
    raw = sqlite3.connect(path)
    other = sqlite3.connect(like or path)
    try:
        tables = other.execute("select name from sqlite_master where type='table'").fetchall()
        found = {}
        for (name,) in tables:
            columns = [row[1] for row in other.execute(f"pragma table_info({name})")]
            rows = raw.execute(f"select {', '.join(columns)} from {name}").fetchall()
            found[name] = sorted(rows, key=repr)
        return found
    finally:
        raw.close()
        other.close()


def batches(path: Path) -> int:
    """How many this version has written."""
    raw = sqlite3.connect(path)
    try:
        return int(raw.execute("select batch from owners_as_of").fetchone()[0])
    finally:
        raw.close()


Column = tuple[object, ...]


def schema(path: Path) -> tuple[dict[str, list[Column]], dict[str, tuple[str, list[Column]]]]:
    """The columns of each table; of each index its table and what it is over."""
    raw = sqlite3.connect(path)
    try:
        found = raw.execute(
            "select type, name, tbl_name, sql from sqlite_master where sql is not null"
        ).fetchall()
        tables = {
            name: raw.execute(f"pragma table_xinfo({name})").fetchall()
            for kind, name, _, _ in found
            if kind == "table"
        }
        indexes = {}
        for kind, name, table, sql in found:
            if kind == "index":
                over = raw.execute(f"pragma index_xinfo({name})").fetchall()
                where = " ".join(sql.partition(" where ")[2].split())
                indexes[name] = (f"{table} where {where}", over)
        return tables, indexes
    finally:
        raw.close()


@pytest.mark.parametrize("before", [False, True], ids=["made by this version", "made by 0.2"])
def test_all_that_the_version_before_names_is_there_as_it_was(
    tmp_path: Path, old: Python, new: Python, before: bool
) -> None:
    """Tables, indexes and nullable columns may have been added, and nothing else."""
    lived(tmp_path / "old", [(old, OLD, 0, 1)])
    start = [(old, OLD, 0, 1)] if before else []
    lived(tmp_path / "new", [*start, (new, NEW, 1, 2)])
    tables, indexes = schema(tmp_path / "old")
    tables_now, indexes_now = schema(tmp_path / "new")
    assert len(tables) > 9 and len(indexes) > 11
    for name, columns in tables.items():
        found = tables_now[name]
        assert found[: len(columns)] == columns, name
        assert [column for column in found[len(columns) :] if column[3]] == [], name  # not null
    assert {name: indexes_now[name] for name in indexes} == indexes


@pytest.mark.parametrize("seed", range(4))
def test_both_versions_in_turns_leave_what_the_version_before_would_have_left(
    tmp_path: Path, old: Python, new: Python, seed: int
) -> None:
    dice, start, steps = random.Random(seed), 1000 * seed, 240
    cuts = sorted(dice.sample(range(1, steps), 5))
    spans = [
        (start + first, start + last)
        for first, last in zip([0, *cuts], [*cuts, steps], strict=True)
    ]
    alone = lived(tmp_path / "alone", [(old, OLD, *span) for span in spans])
    order = [(old, OLD), (new, NEW)] if seed % 2 else [(new, NEW), (old, OLD)]
    both = lived(tmp_path / "both", [(*order[n % 2], *span) for n, span in enumerate(spans)])
    assert both == alone
    expected = contents(tmp_path / "alone")
    assert sum(map(len, expected.values())) > 300
    assert contents(tmp_path / "both", tmp_path / "alone") == expected
    assert expected["owners_as_of"] == [(1, expected["sqlite_sequence"][0][1])]
    own = sum(last - first for n, (first, last) in enumerate(spans) if order[n % 2][0] is new)
    assert own / 2 < batches(tmp_path / "both") <= own, (
        "the numbers of batches go on over the other's turns"
    )


OLDER_ERROR = """
from taskd.errors import Refused, refusal
found = refusal("code-of-tomorrow", "try again later")
assert type(found) is Refused and str(found) == "try again later", found
"""


def test_a_client_of_the_version_before_takes_an_error_that_it_does_not_know_for_a_refusal(
    old: Python,
) -> None:
    done = subprocess.run([old.program, "-P", "-c", OLDER_ERROR], cwd="/", text=True)
    assert done.returncode == 0
