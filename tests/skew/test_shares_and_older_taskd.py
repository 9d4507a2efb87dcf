"""A store that 0.1 uses in between: it counts nothing by user, and what it did is counted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from taskd.errors import LimitReached
from taskd.store.api import Cancel, Share, Submit
from taskd.store.reader import SqliteReader
from taskd.store.sqlite import SqliteStore

WHEEL = Path(__file__).parent.parent / "golden" / "taskd-0.1.0-py3-none-any.whl"

OLDER = """
import sys
from taskd import __version__
assert __version__ == "0.1.0", __version__
from taskd.store.api import Cancel, Claim, Submit
from taskd.store.reader import SqliteReader
from taskd.store.sqlite import SqliteStore
store, reader = SqliteStore(sys.argv[1]), SqliteReader(sys.argv[1])
new = lambda n: Submit(bytes([n]) * 16, 7, "t", 1, b"1234", "x", "q", 0, None, None, 0, None, 1.0)
store.apply([new(1), new(2), Cancel(1, None, 2.0)])
print([row.id for row in reader.ready("q", 9)])
"""


def used_by_the_older(path: str) -> str:
    """What it finds ready, in its order."""
    done = subprocess.run(
        [sys.executable, "-c", OLDER, path],
        env={**os.environ, "PYTHONPATH": str(WHEEL)},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def submit(store: SqliteStore, tasks: int | None = None, size: int | None = None) -> int:
    """One more task of user 7. Raises LimitReached."""
    share = Share(tasks, size)
    new = Submit(
        os.urandom(16), 7, "t", 1, b"1234", "x", "q", 0, None, None, 0, None, 1.0, share
    )  # fmt: skip
    (applied,) = store.apply([new])
    if isinstance(applied.result, Exception):
        raise applied.result
    return int(applied.result.task)


def test_what_an_older_taskd_did_in_between_counts(tmp_path: Path) -> None:
    path = str(tmp_path / "store.db")
    store = SqliteStore(path)
    assert [submit(store, 3), submit(store, 3)] == [1, 2]
    store.close()
    assert used_by_the_older(path) == "[2, 3, 4]"
    store = SqliteStore(path)
    try:
        with pytest.raises(LimitReached, match="has 3 tasks"):
            submit(store, tasks=3)
        with pytest.raises(LimitReached, match="has 12 bytes"):
            submit(store, size=15)
        store.apply([Cancel(2, None, 3.0)])
        submit(store, tasks=3)
        with pytest.raises(LimitReached):
            submit(store, tasks=3)
    finally:
        store.close()


def test_a_store_of_an_older_taskd_is_counted_once_somebody_asks(tmp_path: Path) -> None:
    path = str(tmp_path / "store.db")
    used_by_the_older(path)
    store, reader = SqliteStore(path), None
    try:
        submit(store)
        submit(store, tasks=3)
        with pytest.raises(LimitReached, match="has 3 tasks"):
            submit(store, tasks=3)
        reader = SqliteReader(path)
        assert [row.id for row in reader.ready("q", 9)] == [2, 3, 4]
    finally:
        store.close()
        if reader is not None:
            reader.close()


def test_an_older_client_takes_the_limit_for_a_refusal() -> None:
    code = (
        "from taskd.errors import Refused, refusal\n"
        f"found = refusal({LimitReached.code!r}, 'try again later')\n"
        "assert type(found) is Refused and str(found) == 'try again later', found\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(WHEEL)}, cwd="/"
    )
    assert done.returncode == 0
