"""A client's string is no resource: names that are made up give nobody places, and blind nobody."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from support.apps import WAITS_WITH
from support.daemon import Daemon
from support.raw import Raw
from support.users import STRANGER, as_user, gid, groups_here
from support.waiting import eventually

import taskd
from taskd.errors import Refused
from taskd.master.clients import queues
from taskd.protocol import data

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")

APP = (
    WAITS_WITH
    + """
@task(queue="named-by-a-task")
def other() -> None:
    pass
"""
)

(SUBMITTERS,) = groups_here(1)
FOR_EVER = 9e8


def daemon_with(new_daemon: Callable[..., Daemon], **app: Any) -> Daemon:
    made = new_daemon(
        app=app,
        access={"submit_groups": [SUBMITTERS]},
        queues={"default": {"concurrency": 2}, "named": {}},
    )
    return made.with_releases(APP, "r1", "r2").start()


def as_submitter(act: Callable[[], Any]) -> Any:
    return as_user(STRANGER, [gid(SUBMITTERS)], act)


def submit_all(path: str, names: list[str], delay: float) -> None:
    """One task in each queue, in requests of as many as fit."""
    args = data.encode({})
    fields = {"name": "waits", "args": args, "delay": delay}
    with Raw(path) as raw:
        for at in range(0, len(names), 1000):
            raw.ask(
                "submit",
                tasks=[
                    {"submission": os.urandom(16), "queue": name, **fields}
                    for name in names[at : at + 1000]
                ],
            )


def test_only_queues_that_the_file_or_a_task_names_are_there(
    new_daemon: Callable[..., Daemon],
) -> None:
    daemon = daemon_with(new_daemon)

    def submit(path: str) -> list[int | str]:
        said: list[int | str] = []
        with taskd.Client(path, timeout=30) as client:
            for queue in ("default", "named", "named-by-a-task", "nmaed", "r00t"):
                try:
                    said.append(client.submit("waits", queue=queue, delay=FOR_EVER).id)
                except Refused as refused:
                    said.append(str(refused))
        return said

    for said in (as_submitter(lambda: submit(daemon.submit_socket)), submit(daemon.control)):
        assert all(isinstance(each, int) for each in said[:3])
        assert "there is no queue 'nmaed': did you mean named" in str(said[3])
        assert "there is no queue 'r00t'" in str(said[4])


def test_an_operator_may_open_the_queues_for_operators_alone(
    new_daemon: Callable[..., Daemon],
) -> None:
    daemon = daemon_with(new_daemon, open_queues=True)

    def submit() -> None:
        with taskd.Client(daemon.submit_socket, timeout=30) as client:
            client.submit("waits", queue="customer-7")

    def seen() -> set[str]:
        with taskd.Client(daemon.submit_socket, timeout=30) as client:
            return set(client.status()["queues"])

    with daemon.client() as client:
        task = client.submit("waits", queue="customer-7")
        daemon.reached(task.id, "waits")
        named = {"default", "named", "named-by-a-task"}
        assert set(client.status()["queues"]) == {*named, "customer-7"}
        with pytest.raises(Refused, match="there is no queue 'customer-7'"):
            as_submitter(submit)
        assert as_submitter(seen) == named, "what others call theirs is not told"
        daemon.open_gate("go")
        assert task.result(30) == 0
        assert set(client.status()["queues"]) == named, "an empty one is forgotten"


def test_as_many_names_as_one_likes_blind_nobody(new_daemon: Callable[..., Daemon]) -> None:
    """13,000 names of 196 characters each do not fit in an answer."""
    daemon = daemon_with(new_daemon, open_queues=True, max_workers=1)
    names = [f"{n:05}".ljust(196, "x") for n in range(13_000)]
    submit_all(daemon.control, names, FOR_EVER)
    with daemon.client() as client:
        first = client.submit("waits")
        daemon.reached(first.id, "waits")
        assert set(client.status()["queues"]) == {"default", "named", "named-by-a-task"}
        assert client.status()["states"]["scheduled"] == 13_000
        submit_all(daemon.control, names[:1000], 0)
        found = client.status()
        assert (len(found["queues"]), found["more_queues"]) == (queues.LISTED, True)
        assert found["queues"]["default"]["running"] == 1
        assert (found["states"]["queued"], found["states"]["running"]) == (1000, 1)
        daemon.open_gate("go")


def test_all_queues_together_have_one_ceiling_and_each_its_turn(
    new_daemon: Callable[..., Daemon],
) -> None:
    """It holds over a deploy, which leaves the running ones on the release before, and a crash."""
    daemon = daemon_with(new_daemon, open_queues=True, max_workers=3)
    submit_all(daemon.control, [f"q{n:02}" for n in range(70)], 0)
    with daemon.client() as client:

        def running() -> int:
            return int(client.status()["states"]["running"])

        eventually(lambda: len(daemon.effects()) == 3, "as many as may run at once")
        assert len({client.task(each.task).queue for each in daemon.effects()}) >= 2
        daemon.reload("r2")
        assert (running(), len(daemon.effects())) == (3, 3)
        daemon.kill()
        daemon.start()
        eventually(lambda: running() == 3, "they are taken over")
        assert len(daemon.effects()) == 3
        for _ in range(3):
            client.submit("waits", queue="named")
        assert (running(), len(daemon.effects())) == (3, 3)
        daemon.open_gate("go")
        eventually(lambda: client.status()["states"]["succeeded"] == 73, "all had their turn")


def test_a_worker_that_is_of_no_use_makes_room_below_the_ceiling(
    new_daemon: Callable[..., Daemon],
) -> None:
    """It waits for tasks of a queue with other limits than what is there now."""
    sizes = {"small": {"memory_max": "1GiB"}, "large": {"memory_max": "2GiB"}}
    daemon = new_daemon(app={"max_workers": 1}, queues=sizes)
    daemon.with_releases(APP, "r1")
    daemon.open_gate("go")
    daemon.start()
    with daemon.client() as client:
        for queue in ("small", "large", "small"):
            assert client.submit("waits", queue=queue).result(30) == 0
    assert len({effect.pid for effect in daemon.effects()}) == 3
