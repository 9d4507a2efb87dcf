"""Run by test_store_crash: submits and settles through a Writer until it is killed.

Each line on stdout is an acknowledgement, written by the operation's callback.
"""

from __future__ import annotations

import os
import select
import sys
from typing import Any

from taskd.model.task import Budgets, State
from taskd.store.api import (
    Applied,
    Offer,
    Settle,
    Submit,
    Take,
)
from taskd.store.sqlite import SqliteStore
from taskd.store.writer import Writer

IN_FLIGHT = 40


def main(path: str) -> None:
    notice = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    writer = Writer(lambda: SqliteStore(path), notice)
    writer.start()

    def submitted(outcome: Any) -> None:
        task = result(outcome).task
        say("submitted", task)
        offer = Offer(b"worker of %d" % task, 1, "r1")
        take = Take("q", {}, {task: 1}, (offer,), 1, 2.0)
        writer.submit(take, lambda outcome: claimed(task, outcome))

    def claimed(task: int, outcome: Any) -> None:
        attempt = result(outcome)[0].row.attempt
        end = Settle(task, attempt, State.SUCCEEDED, 3.0, Budgets(), result=b"%d" % task)
        writer.submit(end, lambda outcome: settled(task, outcome))

    def settled(task: int, outcome: Any) -> None:
        result(outcome)
        say("settled", task)

    while True:
        while writer.pending < IN_FLIGHT:
            writer.submit(new(), submitted)
        select.select([notice], [], [])
        writer.completions()


def new() -> Submit:
    name, args = "t", os.urandom(300)
    return Submit(os.urandom(16), 1, name, 1, args, "x", "q", 0, None, None, 0, None, 1.0)


def result(outcome: Any) -> Any:
    assert isinstance(outcome, Applied), outcome
    return outcome.result


def say(what: str, task: int) -> None:
    os.write(1, f"{what} {task}\n".encode())


if __name__ == "__main__":
    main(sys.argv[1])
