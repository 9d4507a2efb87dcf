"""The store cannot be read for a while: each part of the master that reads it waits, and goes on.

The reader's own connection to the file is what fails here, and is opened anew later.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bench import Bench, PlayedClient
from support.answers import Reading

from taskd.errors import Refused
from taskd.model.task import State
from taskd.protocol import data
from taskd.protocol.client_side import End, Item, Refusal
from taskd.protocol.saved import Kind
from taskd.store.api import HoldKind
from taskd.store.reader import SqliteReader
from taskd.store.values import Kind as TaskKind


@contextmanager
def unreadable(bench: Bench) -> Iterator[None]:
    bench.master.storage.reader.close()
    try:
        yield
    finally:
        bench.master.storage.reader = SqliteReader(bench.master.places.store)


def troubles(bench: Bench, what: str) -> list[str]:
    return [each for each in bench.master.loop.troubles.sentences() if each.startswith(what)]


def row(bench: Bench, task: int) -> Any:
    return Reading(bench.master.storage.reader).task(task)


def test_an_end_is_judged_by_what_the_claim_has_answered(bench: Bench) -> None:
    task = bench.submit()
    worker = bench.fork()
    order = bench.run(worker)
    with unreadable(bench):
        bench.end(worker, order, result=data.encode(42))
        assert bench.until(lambda: worker.of("noted"))[0]["answer"] == "recorded"
        assert bench.master.intake.unrecorded == 0
    assert row(bench, task).state is State.SUCCEEDED


def test_what_a_dead_worker_saved_is_added_up_once_the_store_can_be_read(bench: Bench) -> None:
    """And is not taken for something that cannot be added up at all."""
    task = bench.submit()
    worker = bench.fork()
    bench.run(worker)
    worker.slot.append(Kind.STEP, {"path": "count", "value": data.encode(7)})
    with unreadable(bench):
        worker.sock.close()
        bench.is_dead(worker.id)
        gone = {"type": "exited", "worker": worker.id, "pid": os.getpid()}
        bench.zygote.send(gone | {"status": signal.SIGKILL})
        bench.until(lambda: troubles(bench, "it has ended, and that cannot be recorded yet"))
    bench.until(lambda: row(bench, task).state is State.QUEUED)
    assert row(bench, task).saved_version == 1
    assert row(bench, task).budgets.crashes == 1


def test_waiting_tasks_are_claimed_once_the_store_can_be_read(bench: Bench) -> None:
    with unreadable(bench):
        client = PlayedClient(bench)
        client.ask("submit", tasks=[{"name": "work", "args": b"\xa0", "submission": b"x" * 16}])
        bench.until(lambda: [e for e in client.talk() if hasattr(e, "ok")])
        bench.until(lambda: troubles(bench, "no waiting task is started"))
    bench.until(lambda: bench.zygote.of("fork"))
    assert not troubles(bench, "no waiting task is started")


def test_who_follows_is_told_later_and_everything_in_order(bench: Bench) -> None:
    task = bench.submit()
    client, waiter = PlayedClient(bench), PlayedClient(bench)
    client.ask("follow", tasks=[task])
    waiter.ask("wait", tasks=[task])
    bench.until(lambda: [e for e in client.talk() if isinstance(e, Item)])
    bench.until(lambda: waiter.talk())
    with unreadable(bench):
        hold = HoldKind("default", TaskKind("work", None), "for a test", 1, 5.0)
        bench.master.storage.write(hold, lambda _: None)
        bench.until(lambda: troubles(bench, "a client waits for what happened"))
    bench.until(lambda: any(isinstance(e, End) for e in client.talk()))
    bench.until(lambda: any(isinstance(e, End) for e in waiter.talk()))
    states = [e.fields["state"] for e in client.events if isinstance(e, Item)]
    assert states == ["queued", "held"]


def test_a_request_is_refused_meanwhile_and_status_says_why(bench: Bench) -> None:
    task = bench.submit()
    client = PlayedClient(bench)
    with unreadable(bench):
        shown, status = client.ask("show", task=task), client.ask("status")
        bench.until(lambda: any(getattr(e, "id", None) == status for e in client.talk()))
        refusal = next(e for e in client.events if getattr(e, "id", None) == shown)
        assert isinstance(refusal, Refusal)
        assert isinstance(refusal.error, Refused)
        answer: Any = next(e for e in client.events if getattr(e, "id", None) == status)
        assert any("cannot be read: the store" in each for each in answer.ok["problems"])
