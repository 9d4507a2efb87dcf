"""``python -m contrib.bench.store --against COMMIT``: what the store costs, beside that commit.

In turns, each in a new directory: daemons of both checkouts, which are submitted to and drained;
and their stores without a daemon. Of this checkout alone: a claim behind 100,000 tasks that cannot
be run here, beside one without them; the master's memory with many waiting tasks, beside that with
few; and the longest part of any query with a million tasks that are over.

Of the rounds, the least CPU time counts, and the median of the times by the clock. A ratio above 1
means that this checkout costs more.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing

from contrib.bench import daemons, made, slices
from contrib.bench.checkouts import HERE, Cost, environment, exported, told
from taskd.store.api import Offer, Take
from taskd.store.sqlite import SqliteStore
from taskd.store.values import Kind

CLAIMS = os.path.join(os.path.dirname(__file__), "claims.py")

PARTS = ("daemon", "store", "unfit", "memory", "slices")


def main() -> None:
    parser = argparse.ArgumentParser("python -m contrib.bench.store", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--against", metavar="COMMIT", help="another commit, or its checkout")
    parser.add_argument("--tasks", type=int, default=3000, help="to submit and drain, each time")
    parser.add_argument("--many", type=int, default=1_000_000, help="tasks in a large store")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=PARTS, action="append", help="one part (repeatable)")
    given = parser.parse_args()
    parts = given.only or [part for part in PARTS if given.against or part not in PARTS[:2]]
    with tempfile.TemporaryDirectory(prefix="taskd-bench-") as place:
        if {"daemon", "store"} & set(parts):
            if given.against is None:
                parser.error("--against: which commit?")
            older = exported(given.against, place)
            if "daemon" in parts:
                work = lambda checkout: daemons.submits_and_drain(checkout, given.tasks)  # noqa: E731
                compare(older, given.rounds, given.tasks, work)
            if "store" in parts:
                compare(older, given.rounds, given.tasks // 2, lambda c: claims(c, given.tasks))
        if "unfit" in parts:
            unfit(place, given.many, given.rounds)
        if "memory" in parts:
            memory(place, given.many)
        if "slices" in parts:
            longest(place, given.many)


def compare(older: str, rounds: int, count: int, work: Callable[[str], dict[str, Cost]]) -> None:
    """Both checkouts in turns; who is first changes."""
    found: dict[str, dict[str, list[Cost]]] = {older: {}, HERE: {}}
    for number in range(rounds):
        for checkout in (older, HERE) if number % 2 else (HERE, older):
            for name, cost in work(checkout).items():
                found[checkout].setdefault(name, []).append(cost)
    told({name: (found[older][name], found[HERE][name], count) for name in found[HERE]})


def claims(checkout: str, count: int) -> dict[str, Cost]:
    with tempfile.TemporaryDirectory(prefix="taskd-bench-") as place:
        done = subprocess.run(
            [sys.executable, "-P", CLAIMS, place, str(count)],
            env=environment(checkout), stdout=subprocess.PIPE, check=True,
        )  # fmt: skip
    return {name: Cost(*seconds) for name, seconds in json.loads(done.stdout).items()}


def unfit(place: str, many: int, rounds: int, at_once: int = 8, claims: int = 100) -> None:
    """``many`` tasks, of which a tenth, at the head, cannot be run here."""
    paths = [os.path.join(place, name) for name in ("fit.db", "unfit.db")]
    made.add(paths[0], "queued", many)
    made.add(paths[1], "queued", many - many // 10)
    made.add(paths[1], "queued", many // 10, name="unknown", priority=1)
    found: tuple[list[Cost], list[Cost]] = [], []
    with closing(SqliteStore(paths[0])) as fit, closing(SqliteStore(paths[1])) as behind:
        for number in range(1, 2 * rounds + 1):
            store, costs = ((fit, found[0]), (behind, found[1]))[number % 2]
            cpu, wall = time.process_time(), time.monotonic()
            for _ in range(claims):
                last = store.last()
                offers = tuple(Offer(b"%d %d" % (last, n), 1, "r1") for n in range(at_once))
                take = Take("default", {Kind("nothing", None): 1}, {}, offers, 1 << 22, 2.0)
                (applied,) = store.apply(last + 1, [take])
                assert len(applied.result) == at_once
            costs.append(Cost(time.process_time() - cpu, time.monotonic() - wall))
    name = f"claim of {at_once}, a tenth of {many:,} unfit"
    told({name: (*found, claims)})
    for path in paths:
        os.unlink(path)


def memory(place: str, many: int) -> None:
    """The master's, with few and with many tasks waiting."""
    found = []
    for count in (min(10_000, many // 10), many):
        path = os.path.join(place, f"{count}.db")
        made.add(path, "queued", count)
        found.append(daemons.memory(HERE, path, min(500, count // 2)))
        print(f"memory, {count:>9,} queued: {found[-1]['VmRSS']:.1f} MiB,"
              f" at most {found[-1]['VmHWM']:.1f}", flush=True)  # fmt: skip
    for name in found[0]:
        print(f"memory, {name}: ratio {found[1][name] / found[0][name]:.3f}")


def longest(place: str, many: int) -> None:
    """Parts of queries."""
    path = os.path.join(place, "over.db")
    made.add(path, "succeeded", many)
    for name, (parts, cpu, wall, rows) in slices.longest(path, many):
        times = f"CPU {cpu:5.2f} ms, wall {wall:6.2f} ms"
        print(f"{name:32} {parts:6,} parts; the longest: {times}, {rows:,} rows", flush=True)
    os.unlink(path)


if __name__ == "__main__":
    main()
