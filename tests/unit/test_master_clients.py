"""The master and its clients: no peer, however it behaves, harms more than its own connection."""

from __future__ import annotations

import resource

import pytest
from bench import Bench, PlayedClient
from forked import in_child

from taskd.master import clients
from taskd.master.clients import MAX_CLIENTS, most_clients
from taskd.master.core import SUBMIT
from taskd.protocol.client_side import Refusal, Reply


def test_a_thousand_refused_requests_in_one_go_are_all_answered(bench: Bench) -> None:
    client = PlayedClient(bench, SUBMIT)
    for _ in range(1000):
        client.ask("show", task=7)
    bench.until(lambda: sum(isinstance(e, Refusal) for e in client.talk()) == 1000)


def test_requests_behind_a_write_are_answered_in_their_order(bench: Bench) -> None:
    client = PlayedClient(bench)
    for number in range(300):
        client.ask("cancel", task=number + 1)
        client.ask("status")
    bench.until(lambda: len(client.talk()) > 600)
    assert [e.id for e in client.events if isinstance(e, Refusal | Reply)] == list(range(1, 601))


def test_a_client_that_does_not_read_its_replies_is_not_read_either(bench: Bench) -> None:
    """Else whoever may connect could fill the daemon's memory."""
    client = PlayedClient(bench)
    task = bench.submit(text="x" * 500_000)
    client.talk()
    flood = b""
    for _ in range(60_000):
        flood += client.side.request("show", {"task": task})[1] if len(flood) < 3_000_000 else b""
    client._unsent = flood
    sock = client.sock
    idle = 0
    sent = 0
    while idle < 50 and sent < len(flood):
        try:
            sent += sock.send(flood[sent:])
            idle = 0
        except BlockingIOError:
            idle += 1
        bench.turn()
    held = sum(len(each.side.rest) for each in bench.master.clients)
    assert held < 1_000_000
    assert sent < len(flood)


def test_clients_leave_half_of_the_descriptors_to_the_workers() -> None:
    def under_test() -> list[int]:
        found = []
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        for limit in (64, 1024, 4000):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            found.append(most_clients())
        return found

    assert in_child(under_test) == [32, 512, MAX_CLIENTS]


def test_a_client_above_the_limit_waits_until_another_leaves(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "MAX_CLIENTS", 1)
    first = PlayedClient(bench)
    bench.until(first.talk)
    second = PlayedClient(bench)
    second.ask("show", task=7)
    for _ in range(5):
        bench.turn()
        assert not second.talk()
    first.sock.close()
    bench.until(lambda: [e for e in second.talk() if isinstance(e, Refusal)])
