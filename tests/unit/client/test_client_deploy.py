"""What both clients ask of a daemon about deploys: the requests as sent, the answers as given."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any

import pytest
from client_daemon import Daemon
from support.waiting import eventually

from taskd.client.aio import AsyncClient
from taskd.client.blocking import Client
from taskd.errors import DeployRefused, Error, Refused

Ask = Callable[[Any], Any]
Asked = Callable[[Ask], Any]

REJECTED = {"revision": "r3", "path": "/srv/r3", "reason": "it does not import", "at": 5.0}


@pytest.fixture(params=["blocking", "asyncio"])
def ask(request: pytest.FixtureRequest, daemon: Daemon) -> Iterator[Asked]:
    """``ask(lambda client: client.reload())``, with either client."""
    if request.param == "blocking":
        with Client(daemon.path) as client:
            yield lambda what: what(client)
        return

    def asked(what: Callable[[AsyncClient], Awaitable[Any]]) -> Any:
        async def main() -> Any:
            async with AsyncClient(daemon.path) as client:
                return await what(client)

        return asyncio.run(main())

    yield asked


@pytest.mark.parametrize(
    ("what", "op", "fields"),
    [
        (lambda c: c.reload(), "reload", {}),
        (lambda c: c.reload("/srv/r2"), "reload", {"release": "/srv/r2"}),
        (lambda c: c.reload(plan=True), "reload", {"plan": True}),
        (lambda c: c.reload("/r", plan=True, allow_held=True), "reload",
         {"release": "/r", "plan": True, "allow_held": True}),
        (lambda c: c.rollback(), "rollback", {}),
        (lambda c: c.rollback(plan=True), "rollback", {"plan": True}),
        (lambda c: c.rollback(allow_held=True), "rollback", {"allow_held": True}),
        (lambda c: c.drain("r1"), "drain", {"revision": "r1", "how": "finish"}),
        (lambda c: c.drain("r1", "now"), "drain", {"revision": "r1", "how": "now"}),
        (lambda c: c.drain("r1", how="checkpoint"), "drain",
         {"revision": "r1", "how": "checkpoint"}),
    ],
)  # fmt: skip
def test_a_call_sends_what_it_was_given_and_nothing_else(
    ask: Asked, daemon: Daemon, what: Ask, op: str, fields: dict[str, Any]
) -> None:
    daemon.answers[op] = lambda _: {"any": ["thing", 1]}
    assert ask(what) == {"any": ["thing", 1]}
    assert daemon.seen == [(op, fields)]


def test_a_wrong_call_is_refused_before_anything_is_sent(ask: Asked, daemon: Daemon) -> None:
    for what in (
        lambda c: c.drain("r1", "soon"),
        lambda c: c.drain(""),
        lambda c: c.reload("x" * 5000),
        lambda c: c.reload(plan="yes"),
    ):
        with pytest.raises(Refused, match="must be"):
            ask(what)
    assert daemon.seen == []


def test_revisions_and_what_was_rejected_are_two_questions(ask: Asked, daemon: Daemon) -> None:
    live = [{"revision": "r1", "age": 1.5, "memory": None, "holds": []}]
    daemon.answers["revisions"] = lambda _: {"revisions": live, "rejected": [REJECTED]}
    assert ask(lambda c: c.revisions()) == live
    assert ask(lambda c: c.rejected()) == [REJECTED]


def test_a_refused_deploy_raises_with_the_reason(ask: Asked, daemon: Daemon) -> None:
    def refuse(fields: dict[str, Any]) -> None:
        raise DeployRefused("there is no release before this one")

    daemon.answers["rollback"] = daemon.answers["reload"] = refuse
    for what in (lambda c: c.rollback(), lambda c: c.reload()):
        with pytest.raises(DeployRefused, match="no release before"):
            ask(what)


def test_a_deploy_whose_verdict_is_lost_is_not_asked_for_twice(ask: Asked, daemon: Daemon) -> None:
    daemon.answers["rollback"] = lambda _: daemon.hang_up() or {}
    with pytest.raises(Error, match="how the rollback ended"):
        ask(lambda c: c.rollback())
    assert [op for op, _ in daemon.seen] == ["rollback"]


def test_a_drain_whose_answer_is_lost_is_asked_for_again(ask: Asked, daemon: Daemon) -> None:
    answers = iter([daemon.hang_up, lambda: None])
    daemon.answers["drain"] = lambda _: next(answers)() or {"running": 1, "asked": 1}
    assert ask(lambda c: c.drain("r1", "now")) == {"running": 1, "asked": 1}
    assert [op for op, _ in daemon.seen] == ["drain", "drain"]


# ── a deploy beside other requests ───────────────────────────────────────────────────────────


@pytest.fixture
def deploying(daemon: Daemon, gate: threading.Event) -> Daemon:
    """A daemon whose verdict waits for the gate."""

    def verdict(fields: dict[str, Any]) -> dict[str, Any]:
        assert gate.wait(60)
        return {"revision": "r2"}

    daemon.answers["reload"] = verdict
    daemon.answers["status"] = lambda _: {"pid": 7}
    return daemon


def in_loop(daemon: Daemon, scenario: Callable[[AsyncClient], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with AsyncClient(daemon.path) as client:
            await scenario(client)

    asyncio.run(asyncio.wait_for(main(), 60))


def test_a_deploy_does_not_hold_up_the_clients_other_requests(
    deploying: Daemon, gate: threading.Event
) -> None:
    async def scenario(client: AsyncClient) -> None:
        deploy = asyncio.create_task(client.reload())
        await asyncio.to_thread(deploying.wait_for, "reload")
        assert await client.status() == {"pid": 7}
        assert not deploy.done()
        gate.set()
        assert await deploy == {"revision": "r2"}

    in_loop(deploying, scenario)


def test_a_deploy_that_is_left_closes_its_connection(deploying: Daemon) -> None:
    """So the daemon knows that nobody waits for it any more."""

    async def scenario(client: AsyncClient) -> None:
        deploy = asyncio.create_task(client.reload())
        await asyncio.to_thread(deploying.wait_for, "reload")
        deploy.cancel()
        with pytest.raises(asyncio.CancelledError):
            await deploy
        await asyncio.to_thread(eventually, deploying.has_lost_one)
        assert await client.status() == {"pid": 7}

    in_loop(deploying, scenario)


def test_a_deploy_that_is_left_while_it_is_asked_for_closes_its_connection(
    deploying: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon may have the request before the client knows that it is out."""
    sends, goes_on = socket.socket.sendall, threading.Event()

    def sends_and_hangs(sock: socket.socket, data: bytes) -> None:
        sends(sock, data)
        if threading.current_thread().name.startswith("asyncio"):  # the client's, not the daemon's
            assert goes_on.wait(60)

    async def scenario(client: AsyncClient) -> None:
        deploy = asyncio.create_task(client.reload())
        await asyncio.to_thread(deploying.wait_for, "reload")
        deploy.cancel()
        with pytest.raises(asyncio.CancelledError):
            await deploy
        try:
            await asyncio.to_thread(eventually, deploying.has_lost_one)
        finally:
            goes_on.set()

    monkeypatch.setattr(socket.socket, "sendall", sends_and_hangs)
    in_loop(deploying, scenario)
