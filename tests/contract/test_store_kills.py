"""A kill -9 between any two operations, or at any moment: each batch is there whole or not at all,
and what came of the last one is told."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import pytest
from applying import OPERATIONS, TASKS
from contract_bench import told
from stores import STORES
from support.answers import Reading

from taskd.model.task import State
from taskd.store.api import (
    Answer,
    Applied,
    Cancelled,
    Ended,
    Submitted,
)
from taskd.store.queries import Filter, Purged

CHILD = str(Path(__file__).with_name("applying.py"))
KILLS = 20


def run(kind: str, place: Path, *deadly: int, lines: int = 0, pause: float = 0.0) -> list[int]:
    """The batches of whose answers a child has told before it was killed: by itself where
    ``deadly`` says, else ``pause`` seconds after so many lines."""
    words = [sys.executable, CHILD, kind, os.fspath(place), *map(str, deadly)]
    paths = os.pathsep.join([str(Path(CHILD).parents[1]), os.environ.get("PYTHONPATH", "")])
    child = subprocess.Popen(words, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": paths})
    try:
        assert child.stdout is not None
        said = [child.stdout.readline() for _ in range(lines)]
        if not deadly:
            time.sleep(pause)
            child.kill()
        said += child.stdout.readlines()
    finally:
        child.wait() if deadly else child.kill()
        child.communicate()
    assert child.returncode == -9
    return [int(line) for line in said if line.endswith(b"\n")]


def check(kind: str, place: Path) -> int:
    """The number of the last batch; what is stored is what the batches up to that one make."""
    opens, where = STORES[kind], (os.fspath(place), time.time)
    store, reader = opens.store(*where), opens.reader(*where)
    try:
        last = store.last()
        reading = Reading(reader)
        tasks = defaultdict(list)
        for row in sorted(reading.tasks(Filter(limit=1_000_000))):
            tasks[int(row.name[1:])].append(row)
        assert sorted(tasks) == list(range(1, last + 1))
        for number, rows in tasks.items():
            assert len(rows) == TASKS - (last - number > 3)
            assert {row.state for row in rows[1:]} == {State.QUEUED}
            begun = {0: State.QUEUED, 1: State.RUNNING, 2: State.FAILED}
            assert rows[0].state is begun.get(last - number, State.QUEUED)
            assert rows[0].attempt == min(last - number, 1)
        assert len(reading.all(Purged(TASKS))) == (last > 4)
        if last:
            ids = {n: [rows[0].id + place for place in range(TASKS)] for n, rows in tasks.items()}
            gone = [ids[number][1] for number in range(1, last - 4)]
            assert reading.events(gone) == []
            assert told(store.outcome(last)) == expected(ids, last)
        return last
    finally:
        reader.close()
        store.close()


def expected(ids: dict[int, list[int]], last: int) -> list[Applied]:
    """What came of that batch, by the ids of the tasks of each."""
    one, two, three, *more = ids[last]
    answers = [Applied(Submitted(task, True), task) for task in (one, two, three)]
    answers.append(Applied([Submitted(task, True) for task in more], None))
    if last > 1:
        answers.append(Applied([ids[last - 1][0]], None))
    if last > 2:
        end = Ended(State.FAILED, "no")
        answers.append(Applied(Answer.RECORDED, ids[last - 2][0], end))
    if last > 3:
        answers.append(Applied(State.QUEUED, ids[last - 3][0]))
    if last > 4:
        second = ids[last - 4][1]
        cancelled = Cancelled(State.CANCELLED, State.QUEUED)
        answers += [Applied(cancelled, second), Applied([second], None)]
    if last > 5:
        answers.append(Applied([ids[last - 5][1]], None))
    return answers


@pytest.mark.parametrize("kind", STORES)
def test_a_kill_between_two_operations_leaves_nothing_of_their_batch(
    kind: str, tmp_path: Path
) -> None:
    run(kind, tmp_path, lines=6)
    last = check(kind, tmp_path)
    for place in range(OPERATIONS + 1):
        assert run(kind, tmp_path, place) == []
        assert check(kind, tmp_path) == last


@pytest.mark.parametrize("kind", STORES)
def test_a_kill_at_any_moment_leaves_each_batch_whole_or_not_at_all(
    kind: str, tmp_path: Path
) -> None:
    chance = random.Random(1)
    last = 0
    for _ in range(KILLS):
        said = run(kind, tmp_path, lines=chance.randint(1, 20), pause=chance.random() / 200)
        assert said == list(range(last + 1, last + 1 + len(said)))
        acknowledged = last + len(said)
        last = check(kind, tmp_path)
        assert last in (acknowledged, acknowledged + 1)
    assert last > KILLS
