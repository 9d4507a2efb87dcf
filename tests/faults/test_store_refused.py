"""A store that cannot be used: the daemon refuses to start, with what is wrong, where, and what to
do, in one line."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable

import pytest
from support.mounts import Mounted

PAGE = 4096


@pytest.fixture
def daemon(mounted: Callable[..., Mounted]) -> Mounted:
    """With a store of some size: one that a daemon made, and closed well."""
    made = mounted()
    made.start()
    with made.client() as client:
        tasks = [client.submit("quick", {"text": "x" * 5000}) for _ in range(40)]
        assert [task.result(30) for task in tasks] == [5000] * 40
    made.stop()
    assert not os.path.exists(log_of(made)), "it was closed well"
    return made


def store_of(daemon: Mounted) -> str:
    return daemon.path("state", "store.db")


def log_of(daemon: Mounted) -> str:
    return f"{store_of(daemon)}-wal"


def refusal(daemon: Mounted) -> str:
    """The one line that `taskd run` says, exiting with 1."""
    before = len(daemon.log())
    process = daemon.spawn()
    assert process.wait(30) == 1
    lines = daemon.log()[before:].splitlines()
    said = [line for line in lines if line.startswith("taskd: ")]
    assert len(said) == 1, lines
    assert "Traceback" not in daemon.log()
    return said[0].removeprefix("taskd: ")


def overwrite(path: str, offset: int, data: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


def test_a_damaged_header(daemon: Mounted) -> None:
    overwrite(store_of(daemon), 0, b"\xff" * 16)
    assert refusal(daemon) == (
        f"the store {store_of(daemon)} failed: the file is damaged, or not a store; restore it "
        "from a backup, or move it away to begin with an empty one (file is not a database)"
    )


def test_a_truncated_file(daemon: Mounted) -> None:
    os.truncate(store_of(daemon), os.path.getsize(store_of(daemon)) - 3 * PAGE)
    said = refusal(daemon)
    assert f"the store {store_of(daemon)} failed: the file is damaged; restore it" in said


def test_a_page_in_the_middle_that_no_start_reads(daemon: Mounted) -> None:
    """Found by a look at the whole file, before anything is accepted."""
    pages = os.path.getsize(store_of(daemon)) // PAGE
    inner = next(n for n in range(pages // 2, pages) if _is_leaf(store_of(daemon), n))
    overwrite(store_of(daemon), inner * PAGE, b"\xff" * PAGE)
    assert f"the store {store_of(daemon)} is damaged; restore it" in refusal(daemon)


def _is_leaf(path: str, page: int) -> bool:
    with open(path, "rb") as file:
        file.seek(page * PAGE)
        return file.read(1) in (b"\x0d", b"\x0a")


def left_with_a_log(daemon: Mounted) -> list[int]:
    """Killed: what was acknowledged last is in the log alone."""
    daemon.start()
    with daemon.client() as client:
        acknowledged = [client.submit("loop", {"stop_at": 0}).id for _ in range(5)]
    daemon.kill_everything()
    assert os.path.getsize(log_of(daemon)) > 10 * PAGE
    return acknowledged


def test_a_log_that_is_damaged_before_its_end(daemon: Mounted) -> None:
    """SQLite takes that for the log's end: what was acknowledged would be gone without a word."""
    acknowledged = left_with_a_log(daemon)
    overwrite(log_of(daemon), 32 + 24 + 100, b"\xff" * 8)
    said = refusal(daemon)
    assert said.startswith(f"the store's log {log_of(daemon)} is damaged behind frame 0: what was")
    assert "move that file away (nothing was changed)" in said
    assert refusal(daemon) == said
    os.unlink(log_of(daemon))
    daemon.start()
    with daemon.client() as client:
        assert client.status()["states"]["succeeded"] == 40
        assert all(task not in {t.id for t in client.tasks()} for task in acknowledged)


def test_a_log_whose_last_transaction_is_torn_is_no_damage(daemon: Mounted) -> None:
    """A power cut may leave that; it was not acknowledged then."""
    acknowledged = left_with_a_log(daemon)
    size = os.path.getsize(log_of(daemon))
    overwrite(log_of(daemon), size - 100, b"\xff" * 8)
    daemon.start()
    with daemon.client() as client:
        assert acknowledged[0] in {task.id for task in client.tasks()}
    daemon.open_gate("go")


def test_a_newer_schema(daemon: Mounted) -> None:
    with sqlite3.connect(store_of(daemon)) as store:
        store.execute("pragma user_version = 99")
    store.close()
    said = refusal(daemon)
    assert f"the store {store_of(daemon)} has schema 99, this taskd knows schemas up to" in said
    assert "start the newer taskd that wrote it" in said


def test_another_programs_database(daemon: Mounted) -> None:
    os.unlink(store_of(daemon))
    with sqlite3.connect(store_of(daemon)) as store:
        store.execute("create table theirs (x)")
    store.close()
    assert "is a database, but not a taskd store; move it away" in refusal(daemon)


LOCKER = """
import sqlite3, sys
store = sqlite3.connect(sys.argv[1], isolation_level=None)
store.execute("pragma locking_mode = exclusive")
store.execute("begin exclusive")
print("locked", flush=True)
sys.stdin.read()
"""


def test_a_store_that_another_process_has_locked(daemon: Mounted) -> None:
    command = [sys.executable, "-c", LOCKER, store_of(daemon)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as locker:  # type: ignore[call-overload]
        try:
            assert locker.stdout.readline() == "locked\n"
            os.kill(locker.pid, signal.SIGSTOP)  # nor does it go on by itself
            said = refusal(daemon)
        finally:
            locker.kill()
    assert f"another process has locked it; see who with `fuser {store_of(daemon)}`" in said
    daemon.start()


def test_a_state_directory_that_may_not_be_written(daemon: Mounted) -> None:
    daemon.read_only("state")
    said = refusal(daemon)
    assert "Read-only file system" in said
    assert daemon.path("state") in said
    daemon.unmount("state")
    daemon.start()


def test_a_full_state_directory(mounted: Callable[..., Mounted]) -> None:
    daemon = mounted()
    daemon.small("state")
    daemon.fill("state")
    said = refusal(daemon)
    assert daemon.path("state") in said
    assert "free some space" in said
    daemon.make_room("state")
    daemon.start()
