"""``AsyncClient`` over a real socket: the same promises as ``Client``, on one connection."""

from __future__ import annotations

import asyncio
import os
import pathlib
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
from client_daemon import Daemon

from taskd import AsyncClient
from taskd.client.session import Session
from taskd.errors import (
    Error,
    NoDaemon,
    NotPlainData,
    ProtocolError,
    Refused,
    TaskFailed,
    UnknownTask,
)

Scenario = Callable[[AsyncClient], Coroutine[Any, Any, None]]


def run(daemon: Daemon, scenario: Scenario, timeout: float = 30.0) -> None:
    async def main() -> None:
        async with AsyncClient(daemon.path, timeout=timeout) as client:
            await scenario(client)

    asyncio.run(asyncio.wait_for(main(), 60))


async def until(is_so: Callable[[], Any], client: AsyncClient) -> None:
    while not is_so():
        await client.status()


def test_every_operation_has_its_answer(daemon: Daemon) -> None:
    async def scenario(client: AsyncClient) -> None:
        task = await client.submit("known", {"a": (1,)}, key="k", priority=1)
        assert repr(task) == f"<task {task.id}>"
        assert (await task.status()).key == "k"
        assert (await client.status())["pid"] == os.getpid()
        assert await client.revisions() == [{"revision": "r1"}]
        assert (await client.reload("r9"))["revision"] == "r9"
        assert (await client.log(task.id, 4))["data"] == b"two\n"
        assert await task.cancel() == {"state": "cancelled", "was": "queued"}
        assert await task.retry() == {"state": "queued"}
        for _ in range(7):
            await client.submit("known")
        assert [info.id for info in await client.tasks(limit=5)] == [8, 7, 6, 5, 4]
        assert daemon.connections == 2, "all of them share one; the deploy has its own"

    run(daemon, scenario)


def test_refusals_and_bad_arguments_are_raised(daemon: Daemon) -> None:
    async def scenario(client: AsyncClient) -> None:
        with pytest.raises(NotPlainData, match=r'args\["x"\]'):
            await client.submit("known", {"x": object()})
        assert daemon.connections == 0
        with pytest.raises(UnknownTask, match="did you mean"):
            await client.submit("unknown")

    run(daemon, scenario)


def test_many_results_are_awaited_on_one_connection(daemon: Daemon) -> None:
    async def scenario(client: AsyncClient) -> None:
        tasks = await asyncio.gather(*(client.submit("known") for _ in range(50)))
        results = asyncio.gather(*(task.result() for task in tasks))
        await until(lambda: daemon.requests["wait"] == 50, client)
        for task in reversed(tasks):
            daemon.move(task.id, "succeeded", task.id)
        assert await results == [task.id for task in tasks]
        assert daemon.connections == 1

    run(daemon, scenario)


def test_a_failed_task_raises(daemon: Daemon) -> None:
    async def scenario(client: AsyncClient) -> None:
        task = await client.submit("known")
        daemon.move(task.id, "failed", error={"type": "KeyError", "message": "x"})
        with pytest.raises(TaskFailed, match="KeyError: x"):
            await task.result()

    run(daemon, scenario)


@pytest.mark.parametrize("op", ["submit", "show", "status", "cancel"])
def test_a_request_whose_answer_is_lost_is_sent_again(daemon: Daemon, op: str) -> None:
    async def scenario(client: AsyncClient) -> None:
        task = await client.submit("known")
        daemon.seen.clear()
        daemon.hang_up_before_reply[op] = 2
        asks: dict[str, Callable[[], Awaitable[Any]]] = {
            "submit": lambda: client.submit("known"),
            "show": task.status,
            "status": client.status,
            "cancel": task.cancel,
        }
        await asks[op]()
        assert daemon.requests == {op: 3}
        assert len(daemon.tasks) == (2 if op == "submit" else 1)

    run(daemon, scenario)


def test_a_retry_and_a_reload_whose_answers_are_lost(daemon: Daemon) -> None:
    async def scenario(client: AsyncClient) -> None:
        task = await client.submit("known")
        daemon.move(task.id, "failed")
        daemon.hang_up_before_reply.update({"retry": 1, "reload": 1})
        assert await task.retry() == {"state": "queued"}
        with pytest.raises(Error, match="taskctl status"):
            await client.reload()
        assert daemon.requests["reload"] == 1

    run(daemon, scenario)


def test_follow_and_wait_ride_over_lost_connections(daemon: Daemon) -> None:
    async def scenario(client: AsyncClient) -> None:
        task, other = await client.submit("known"), await client.submit("known")

        async def followed() -> list[Any]:
            return [event["event"] async for event in client.follow([task.id, other.id])]

        following = asyncio.create_task(followed())
        waiting = asyncio.create_task(client.wait([other.id, task.id]))
        daemon.hang_up_after_items = 2
        for count, state in enumerate(["running", "queued", "running", "queued", "succeeded"]):
            daemon.move(task.id, state)
            if count % 2:
                daemon.hang_up()
            await client.status()
        daemon.move(other.id, "cancelled")
        assert [info.state for info in await waiting] == ["cancelled", "succeeded"]
        assert await following == [event["event"] for event in daemon.events]

    run(daemon, scenario)


def test_progress_comes_where_it_is_wanted(daemon: Daemon) -> None:
    async def scenario(client: AsyncClient) -> None:
        task = await client.submit("known")
        daemon.report(task.id, 5, 9)
        async for item in task.follow(progress=True):
            if "progress" in item:
                assert item["progress"]["done"] == 5
                daemon.move(task.id, "succeeded")

    run(daemon, scenario)


def test_waiting_too_long_names_the_tasks_and_stops_the_stream(daemon: Daemon) -> None:
    async def scenario(client: AsyncClient) -> None:
        done, running = await client.submit("known"), await client.submit("known")
        daemon.move(done.id, "succeeded")
        for timeout, unheard_of in ((0.05, f"({done.id}, )?"), (0, "")):
            with pytest.raises(TimeoutError, match=f"going on: task {unheard_of}{running.id}$"):
                await client.wait([done.id, running.id], timeout)
        assert await done.result(0) is None
        await until(lambda: daemon.requests["stop"] == 1, client)

    run(daemon, scenario)


def test_a_follow_that_is_left_is_stopped_and_the_connection_stays(daemon: Daemon) -> None:
    async def scenario(client: AsyncClient) -> None:
        task = await client.submit("known")
        stream = client.follow([task.id])
        await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]
        await until(lambda: daemon.requests["stop"] == 1, client)
        assert daemon.connections == 1

    run(daemon, scenario)


def test_a_cancelled_request_leaves_the_others_alone(daemon: Daemon) -> None:
    async def scenario(client: AsyncClient) -> None:
        task = await client.submit("known")
        waiting = asyncio.create_task(task.result())
        await until(lambda: daemon.requests["wait"], client)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert (await client.status())["pid"] == os.getpid()

    run(daemon, scenario)


def test_a_daemon_that_was_away_is_found_again(daemon: Daemon) -> None:
    async def scenario(client: AsyncClient) -> None:
        task = await client.submit("known")
        result = asyncio.create_task(task.result())
        await until(lambda: daemon.requests["wait"], client)
        daemon.stop()
        asking = asyncio.create_task(client.status())
        daemon.start()
        assert (await asking)["pid"] == os.getpid()
        daemon.move(task.id, "succeeded", 5)
        assert await result == 5

    run(daemon, scenario)


def test_a_daemon_that_was_never_there_is_reported_at_once(tmp_path: pathlib.Path) -> None:
    async def main() -> None:
        async with AsyncClient(str(tmp_path / "none.sock"), timeout=3600) as client:
            for ask in (client.status, lambda: client.wait([1]), client.reload):
                with pytest.raises(NoDaemon, match=r"none.sock: does not exist"):
                    await ask()

    asyncio.run(asyncio.wait_for(main(), 60))


def test_a_daemon_that_stays_away_or_silent_is_given_up_after_the_timeout(daemon: Daemon) -> None:
    async def scenario(client: AsyncClient) -> None:
        daemon.silent.add("status")
        with pytest.raises(NoDaemon, match="did not answer within"):
            await client.status()
        daemon.stop()
        with pytest.raises(NoDaemon, match="no process listens on it"):
            await client.wait([1])

    run(daemon, scenario, timeout=0.1)


def test_a_goodbye_and_a_breach_end_what_waits_and_the_next_request_is_fine(daemon: Daemon) -> None:
    async def scenario(client: AsyncClient) -> None:
        daemon.goodbye = Refused("too many connections")
        with pytest.raises(Refused, match="too many"):
            await client.status()
        daemon.goodbye = None
        daemon.poison = b"\0\0\0\0"
        with pytest.raises(ProtocolError):
            await client.status()
        daemon.poison = None
        assert (await client.status())["pid"] == os.getpid()

    run(daemon, scenario)


def test_closing_ends_what_waits(daemon: Daemon) -> None:
    async def scenario(client: AsyncClient) -> None:
        task = await client.submit("known")
        waiting = asyncio.create_task(task.result())
        await until(lambda: daemon.requests["wait"], client)
        await client.close()
        with pytest.raises(Error, match="closed"):
            await waiting

    run(daemon, scenario)


def test_a_client_begins_anew_in_another_event_loop(daemon: Daemon) -> None:
    client = AsyncClient(daemon.path)

    async def once() -> int:
        async with client:
            return (await client.submit("known")).id

    assert [asyncio.run(once()), asyncio.run(once())] == [1, 2]


def test_a_bug_in_the_client_does_not_leave_anybody_waiting(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(session: Session, data: bytes) -> None:
        raise RuntimeError("a bug")

    async def scenario(client: AsyncClient) -> None:
        reports: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, report: reports.append(report))
        monkeypatch.setattr(Session, "receive", break_down)
        with pytest.raises(Error, match=r"the client broke.*a bug"):
            await client.status()
        monkeypatch.undo()
        assert (await client.status())["pid"] == os.getpid()

    run(daemon, scenario)
