"""Requests that wait for the store: what happens until it answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from bench import Bench, PlayedClient

from taskd.errors import StoreError
from taskd.protocol.client_side import Refusal, Reply
from taskd.store.queries import Events, Glances, Listed, QueueCounts, Shown, WaitingGroups

OF_CLIENTS = (Events, Glances, Listed, QueueCounts, Shown, WaitingGroups)

Waiting = list[Callable[[], None]]


@pytest.fixture
def late(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Waiting:
    """The store answers when the test calls what is in here."""
    waiting: Waiting = []
    at_once = bench.master.storage.ask

    def ask(query: Any, done: Any) -> None:
        if isinstance(query, OF_CLIENTS):
            waiting.append(lambda: at_once(query, done))
        else:  # what dispatch, schedules and others ask for themselves
            at_once(query, done)

    monkeypatch.setattr(bench.master.storage, "ask", ask)
    return waiting


def answers(client: PlayedClient) -> list[tuple[int, Any]]:
    """What requests were answered with, in order."""
    found = [e for e in client.talk() if isinstance(e, (Reply, Refusal))]
    return [(e.id, e.ok if isinstance(e, Reply) else e.error) for e in found]


def test_nothing_that_comes_later_overtakes_a_request_that_waits(
    bench: Bench, late: Waiting
) -> None:
    task = bench.submit()
    client = PlayedClient(bench)
    first = client.ask("list")
    second, third = client.ask("cancel", task=task), client.ask("show", task=task)
    bench.until(lambda: client.talk() and late)
    assert bench.master.clients.in_flight == 1
    late.pop(0)()
    bench.until(lambda: len(answers(client)) == 2 and late)
    late.pop(0)()
    bench.until(lambda: len(answers(client)) == 3)
    (one, listed), (two, _), (three, shown) = answers(client)
    assert [one, two, three] == [first, second, third]
    assert listed["tasks"][0]["state"] == "queued"
    assert shown["task"]["state"] == "cancelled"


def test_a_client_that_is_gone_gets_no_answer_and_holds_nothing_up(
    bench: Bench, late: Waiting
) -> None:
    client = PlayedClient(bench)
    client.ask("follow", tasks=[bench.submit()])
    bench.until(lambda: client.talk() and late)
    (known,) = bench.master.clients
    known.wire.close()
    known.wire.on_lost()
    assert bench.master.clients.in_flight == 0
    late.pop(0)()
    assert bench.master.streams.of(known) == []


def test_a_store_that_cannot_be_read_refuses_the_request(bench: Bench, late: Waiting) -> None:
    client = PlayedClient(bench)
    client.ask("show", task=bench.submit())
    bench.until(lambda: client.talk() and late)
    bench.master.storage.reader.close()
    late.pop(0)()
    (found,) = bench.until(lambda: answers(client))
    assert isinstance(found[1], StoreError)
    bench.master.storage.try_to_open()


def test_a_deploy_waits_for_no_read_and_what_was_asked_is_asked_anew(
    bench: Bench, late: Waiting
) -> None:
    task = bench.submit()
    client = PlayedClient(bench)
    asked = [client.ask("wait", tasks=[task]), client.ask("status"), client.ask("list")]
    bench.until(lambda: client.talk() and late)
    clients = bench.master.clients
    clients.pause(True)
    assert clients.in_flight == 0
    old = late.pop(0)
    (known,) = clients
    assert known.side.pending == 0 and known.side.held > 0
    clients.pause(False)
    old()
    assert answers(client) == []

    def answer_next() -> bool:
        if late:
            late.pop(0)()
        return len(answers(client)) == len(asked)

    bench.until(answer_next)
    assert [number for number, _ in answers(client)] == asked


def test_a_read_behind_a_write_is_put_back_when_a_deploy_pauses(
    bench: Bench, late: Waiting
) -> None:
    task = bench.submit()
    client = PlayedClient(bench)
    bench.until(client.talk)
    writer = bench.master.storage.writer
    completions, writer.completions = writer.completions, lambda: 0  # type: ignore[method-assign]
    asked = [client.ask("cancel", task=task), client.ask("show", task=task)]
    bench.until(lambda: client.talk() and bench.master.clients.in_flight == 2)
    bench.master.clients.pause(True)
    assert writer.flush(30)
    writer.completions = completions  # type: ignore[method-assign]
    completions()
    assert bench.master.clients.in_flight == 0
    bench.master.clients.pause(False)
    bench.until(lambda: late).pop(0)()
    bench.until(lambda: len(answers(client)) == 2)
    assert [number for number, _ in answers(client)] == asked
