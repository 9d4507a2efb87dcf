"""The master and its clients: no peer, however it behaves, harms more than its own connection."""

from __future__ import annotations

import itertools
import resource
from typing import Any

import pytest
from bench import Bench, PlayedClient
from forked import in_child

from taskd.errors import Busy
from taskd.master.clients import peer_limits
from taskd.master.clients.peer_limits import MAX_CLIENTS, most_clients
from taskd.paths import SUBMIT_SOCKET
from taskd.protocol.client_side import Goodbye, Refusal, Reply


def test_a_thousand_refused_requests_in_one_go_are_all_answered(bench: Bench) -> None:
    client = PlayedClient(bench, SUBMIT_SOCKET)
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


@pytest.mark.parametrize(
    ("op", "fields", "most"),
    [("status", {}, 3), ("revisions", {}, 3), ("list", {"limit": 1000}, 6), ("show", {}, 64 * 3)],
)
def test_what_costs_more_takes_more_of_a_connections_turn(
    bench: Bench, op: str, fields: dict[str, Any], most: int
) -> None:
    """Another one is answered after so many of them, however many were asked for at once."""
    task = bench.submit()
    greedy, other = PlayedClient(bench), PlayedClient(bench)
    for client in (greedy, other):
        bench.until(client.talk, "it is greeted")
        client.events.clear()
    for _ in range(300):
        greedy.ask(op, **(fields if op != "show" else {"task": task}))
    greedy.talk()
    bench.turn()
    other.ask("show", task=task)
    bench.until(other.talk, "the other one is answered")
    assert 0 < len(greedy.talk()) <= most


def test_clients_leave_half_of_the_descriptors_to_the_workers() -> None:
    def under_test() -> list[int]:
        found = []
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        for limit in (64, 1024, 4000):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            found.append(most_clients())
        return found

    assert in_child(under_test) == [32, 512, MAX_CLIENTS]


def ended_busy(client: PlayedClient) -> str | None:
    """Why the connection was ended, if it was."""
    for _ in range(3):  # it cannot send; it reads, up to the reset; it looks at what it read
        try:
            client.talk()
            break
        except ConnectionError:
            client._unsent = b""
    while (event := client.side.next()) is not None:
        client.events.append(event)
    ends = [event.error for event in client.events if isinstance(event, Goodbye)]
    assert all(isinstance(end, Busy) for end in ends)
    return str(ends[0]) if ends else None


def test_a_client_above_the_limit_is_told_so_and_comes_in_once_another_has_left(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_limits, "MAX_CLIENTS", 2)
    first = PlayedClient(bench)
    bench.until(first.talk)
    second = PlayedClient(bench)
    bench.until(lambda: ended_busy(second))
    assert "has 1 connections, and 1 is the limit for one user" in str(ended_busy(second))
    first.sock.close()
    bench.until(lambda: not list(bench.master.clients))
    third = PlayedClient(bench)
    third.ask("show", task=7)
    bench.until(lambda: [e for e in third.talk() if isinstance(e, Refusal)])


def test_each_in_its_turn_is_answered_while_one_asks_without_end(bench: Bench) -> None:
    """What came from one in one piece is not all done before the next one is heard."""
    loud, modest = PlayedClient(bench), PlayedClient(bench)
    bench.until(lambda: loud.talk() and modest.talk())
    for _ in range(3000):
        loud.ask("show", task=7)
    loud._unsent, flood = b"", loud._unsent
    loud.sock.setblocking(True)
    loud.sock.sendall(flood)
    loud.sock.setblocking(False)
    modest.ask("status")
    bench.until(lambda: any(isinstance(e, Reply) for e in modest.talk()))
    (at_work,) = [each for each in bench.master.clients if each.side.rest]
    assert len(at_work.side.rest) > 40_000, "most of what the loud one asked is still to be done"
    bench.until(lambda: sum(isinstance(e, Refusal) for e in loud.talk()) == 3000)


def test_who_says_nothing_is_cut_off_and_who_only_waits_is_not(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_limits, "HEARD_WITHIN", 0.5)
    task = bench.submit()
    quiet, follower, half = [PlayedClient(bench) for _ in range(3)]
    bench.until(lambda: all([each.talk() for each in (quiet, follower, half)]))  # noqa: C419
    follower.ask("follow", tasks=[task])
    bench.until(lambda: len(follower.talk()) >= 3)
    silent, slow = PlayedClient(bench), PlayedClient(bench)
    silent._unsent = b""
    half._unsent = half.side.request("status", {})[1][:-1]
    drops = itertools.chain((1_000_000).to_bytes(4, "big"), itertools.repeat(0))

    def drip() -> bool:
        slow._unsent = bytes([next(drops)])
        return all([ended_busy(each) for each in (silent, slow, half)])  # noqa: C419  # all talk

    bench.until(drip)
    assert "nothing whole has come from it" in str(ended_busy(half))
    quiet.ask("status")
    bench.until(lambda: any(isinstance(e, Reply) for e in quiet.talk()))
    assert not [e for e in follower.talk() if isinstance(e, Goodbye)]


def test_who_holds_most_is_cut_off_when_all_is_too_much(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_limits, "HELD_IN_ALL", 3_000_000)
    clients = [PlayedClient(bench) for _ in range(4)]
    bench.until(lambda: all(each.talk() for each in clients))
    sizes = [400_000, 900_000, 1_900_000, 700_000]
    for client, size in zip(clients, sizes, strict=True):
        client._unsent = (2_000_000).to_bytes(4, "big") + bytes(size)
    bench.until(lambda: any([ended_busy(each) for each in clients]))  # noqa: C419  # all of them
    bench.until(lambda: not any([ended_busy(c) is None and c._unsent for c in clients]))  # noqa: C419
    assert "bytes wait for it" in str(ended_busy(clients[2]))
    assert [ended_busy(clients[at]) for at in (0, 1, 3)] == [None, None, None]


def test_the_tasks_that_one_user_watches_are_bounded(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_limits, "MOST_WATCHED", 10)
    monkeypatch.setattr(peer_limits, "MOST_STREAMS", 4)
    task = bench.submit()
    first, second = PlayedClient(bench), PlayedClient(bench)
    follow = first.ask("follow", tasks=[task] * 6)
    bench.until(lambda: any(isinstance(e, Reply) for e in first.talk()))
    second.ask("wait", tasks=[task] * 5)
    bench.until(lambda: any(isinstance(e, Refusal) for e in second.talk()))
    (refusal,) = [e.error for e in second.events if isinstance(e, Refusal)]
    assert isinstance(refusal, Busy)
    assert "watches 6 tasks in open streams, and 10 is the limit" in str(refusal)
    first.ask("stop", stream=follow)
    bench.until(lambda: sum(isinstance(e, Reply) for e in first.talk()) == 2)
    for _ in range(5):
        second.ask("follow", tasks=[task])
    bench.until(lambda: sum(isinstance(e, Refusal) for e in second.talk()) == 2)
    assert "4 streams open" in str([e for e in second.events if isinstance(e, Refusal)][1].error)
    second.sock.close()
    bench.until(lambda: len(list(bench.master.clients)) == 1)
    first.ask("follow", tasks=[task] * 10)
    bench.until(lambda: sum(isinstance(e, Reply) for e in first.talk()) == 3)
