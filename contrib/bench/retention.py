"""What removing many old tasks costs those who submit meanwhile.

``python -m contrib.bench.retention [--tasks N] [--seconds S] [--most S]``

Fills a store with N tasks that succeeded long ago (each with arguments, a result, three events and
a submission id), starts a daemon on it and submits by one client, one task after the other, while
the daemon removes them. Prints the same for a daemon that keeps them, then for the one that removes
them: how long a submission took (p50, p99, the longest), the longest time for which the daemon did
not answer ``status``, and what is left of the file.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator

import taskd
from taskd.store.sqlite import SqliteStore

APP = "from taskd import task\n\n@task\ndef noop() -> None: ...\n"

CONFIG = """
[app]
release = "{place}/r1"
python = "{python}"
modules = ["app"]
memory_reserve = "none"

[retention]
succeeded = "{kept}"
"""

LONG_AGO = 1.6e9
DAY = 86400.0


def fill(path: str, count: int) -> None:
    """Make the store by the store's own code, then its rows by SQL: a million commits take long."""
    SqliteStore(path).close()
    raw = sqlite3.connect(path, isolation_level=None)
    raw.executescript("pragma journal_mode = wal; pragma synchronous = off; begin;")
    raw.execute("insert into groups_waiting (id, name, version, shape) values (1, 'noop', 1, 'a')")

    def tasks() -> Iterator[tuple[object, ...]]:
        for number in range(1, count + 1):
            yield number, LONG_AGO + number, LONG_AGO + number + 1, LONG_AGO + number + 2

    raw.executemany(
        "insert into tasks (id, owner, queue, state, priority, attempt, retries_allowed, group_id,"
        " name, version, submitted, started, ended, revision)"
        " values (?, 0, 'default', 'succeeded', 0, 1, 0, 1, 'noop', 1, ?, ?, ?, 'r1')",
        tasks(),
    )
    numbers = f"with recursive n (i) as (select 1 union all select i + 1 from n where i < {count})"
    raw.execute(f"insert into arguments {numbers} select i, zeroblob(200) from n")
    raw.execute(f"insert into results {numbers} select i, zeroblob(100) from n")
    raw.execute(f"insert into submissions {numbers} select randomblob(16), i from n")
    for state in ("queued", "running", "succeeded"):
        raw.execute(
            "insert into events (task, at, state, attempt, revision)"
            f" {numbers} select i, {LONG_AGO} + i, '{state}', 1, 'r1' from n"
        )
    raw.execute("insert into counts values ('default', 'succeeded', ?)", (count,))
    raw.execute("update owners_as_of set event = (select max(number) from events)")
    raw.execute("commit")
    raw.execute("pragma wal_checkpoint(truncate)")
    raw.close()


class Place:
    """A daemon in a directory of its own."""

    def __init__(self, place: str) -> None:
        self.place = place
        for name in ("state", "run", "logs", "r1"):
            os.makedirs(os.path.join(place, name), mode=0o700, exist_ok=True)
        with open(os.path.join(place, "r1", "app.py"), "w", encoding="utf-8") as file:
            file.write(APP)
        self.store = os.path.join(place, "state", "store.db")
        self.socket = os.path.join(place, "run", "control.sock")

    def start(self, kept: str) -> subprocess.Popen[bytes]:
        config = os.path.join(self.place, "taskd.toml")
        with open(config, "w", encoding="utf-8") as file:
            file.write(CONFIG.format(place=self.place, python=sys.executable, kept=kept))
        places = {
            f"{name}_DIRECTORY": os.path.join(self.place, where)
            for name, where in (("STATE", "state"), ("RUNTIME", "run"), ("LOGS", "logs"))
        }
        words = [sys.executable, "-m", "taskd", "run", "--config", config]
        with open(os.path.join(self.place, "log"), "ab") as log:
            daemon = subprocess.Popen(words, env={**os.environ, **places}, stdout=log, stderr=log)
        while daemon.poll() is None and not os.path.exists(self.socket):
            time.sleep(0.01)
        return daemon


def over(store: str) -> int:
    raw = sqlite3.connect(f"file:{store}?mode=ro", uri=True)
    try:
        found = raw.execute("select sum(tasks) from counts where state = 'succeeded'").fetchone()
        return int(found[0] or 0)
    finally:
        raw.close()


def free(store: str) -> float:
    """The part of the file that holds nothing."""
    raw = sqlite3.connect(f"file:{store}?mode=ro", uri=True)
    try:
        names = ("freelist_count", "page_count")
        unused, pages = (raw.execute(f"pragma {name}").fetchone()[0] for name in names)
        return float(unused) / float(pages)
    finally:
        raw.close()


def measure(place: Place, kept: str, seconds: float, is_to_end: bool) -> None:
    """Submit for so many seconds; ``is_to_end``: or until all is removed, and given back."""
    daemon = place.start(kept)
    took: list[float] = []
    answered: list[float] = []
    is_over = threading.Event()

    def ask() -> None:
        with taskd.Client(place.socket) as client:
            while not is_over.wait(0.005):
                begun = time.monotonic()
                client.status()
                answered.append(time.monotonic() - begun)

    try:
        with taskd.Client(place.socket, timeout=120) as client:
            client.status()
            asking = threading.Thread(target=ask)
            asking.start()
            begun = time.monotonic()
            before, looked = over(place.store), begun
            while True:
                now = time.monotonic()
                if now - begun > seconds:
                    break
                if is_to_end and now - looked > 1:
                    looked = now
                    if over(place.store) == 0 and free(place.store) < 0.2:
                        break
                client.submit("noop", delay=10 * DAY)
                took.append(time.monotonic() - now)
            lasted = time.monotonic() - begun
            removed = before - over(place.store)
            is_over.set()
            asking.join()
    finally:
        is_over.set()
        daemon.terminate()
        daemon.wait(60)
    took.sort()
    size = os.path.getsize(place.store) / 1e6
    print(
        f"kept {kept}: {len(took):,} submissions in {lasted:.0f} s, p50 {_ms(took, 0.5)}, "
        f"p99 {_ms(took, 0.99)}, longest {took[-1] * 1000:.0f} ms; status at most "
        f"{max(answered) * 1000:.0f} ms; {removed:,} removed; file {size:.0f} MB, "
        f"{free(place.store) * 100:.0f}% of it free",
        flush=True,
    )


def _ms(sorted_times: list[float], part: float) -> str:
    return f"{sorted_times[int(len(sorted_times) * part)] * 1000:.1f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--most", type=float, default=7200.0, help="seconds for removing")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="taskd-bench-") as where:
        place = Place(where)
        begun = time.monotonic()
        fill(place.store, args.tasks)
        size = os.path.getsize(place.store) / 1e6
        print(f"{args.tasks:,} tasks, {size:.0f} MB, in {time.monotonic() - begun:.0f} s")
        measure(place, "forever", args.seconds, False)
        measure(place, "7d", args.most, True)


if __name__ == "__main__":
    main()
