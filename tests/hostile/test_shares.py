"""One user's share of the daemon is not all of it: tasks, bytes, the disk, priority, turns."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from support.daemon import Daemon
from support.users import OTHER, STRANGER, as_user, gid, groups_here

import taskd
from taskd.errors import LimitReached, NotAllowed, Refused

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")

APP = """
from taskd import task
from side import gate, mark

@task
def waits(text: str = "") -> int:
    mark("waits")
    gate("go")
    return len(text)
"""

(SUBMITTERS,) = groups_here(1)
FOR_EVER = 9e8

Submits = Callable[[taskd.Client], Any]


@pytest.fixture
def daemon_with(new_daemon: Callable[..., Daemon]) -> Callable[..., Daemon]:
    def make(**access: Any) -> Daemon:
        made = new_daemon(
            access={"submit_groups": [SUBMITTERS], **access},
            queues={"default": {"concurrency": 1}},
        )
        return made.with_releases(APP, "r1", "r2").start()

    return make


def by_submit_sock(daemon: Daemon, act: Submits, uid: int = STRANGER) -> Any:
    def ask() -> Any:
        with taskd.Client(daemon.submit_socket, timeout=30) as client:
            return act(client)

    return as_user(uid, [gid(SUBMITTERS)], ask)


def later(client: taskd.Client, text: str = "", **how: Any) -> int:
    return int(client.submit("waits", {"text": text}, delay=FOR_EVER, **how).id)


def test_a_user_has_so_many_tasks_over_deploys_and_crashes(
    daemon_with: Callable[..., Daemon],
) -> None:
    daemon = daemon_with(tasks_per_user=3)
    mine = by_submit_sock(daemon, lambda client: [later(client) for _ in range(3)])

    def is_full() -> bool:
        with pytest.raises(LimitReached, match="tasks_per_user is 3: try again once some"):
            by_submit_sock(daemon, later)
        return True

    assert is_full()
    by_submit_sock(daemon, later, OTHER)
    with daemon.client() as operator:
        for _ in range(4):
            later(operator)
    daemon.reload("r2")
    assert is_full()
    daemon.kill()
    daemon.start()
    assert is_full()
    daemon.restart()
    assert is_full()
    by_submit_sock(daemon, lambda client: client.handle(mine[0]).cancel())
    by_submit_sock(daemon, later)
    assert is_full()
    daemon.sections["access"]["tasks_per_user"] = 4
    daemon.write_config()
    daemon.reload("r1")
    by_submit_sock(daemon, later)


def test_a_user_has_so_many_bytes_of_arguments(daemon_with: Callable[..., Daemon]) -> None:
    daemon = daemon_with(bytes_per_user="64KiB")
    by_submit_sock(daemon, lambda client: later(client, "x" * 50_000))
    with pytest.raises(LimitReached, match="bytes_per_user is 65,536"):
        by_submit_sock(daemon, lambda client: later(client, "x" * 20_000))
    with pytest.raises(Refused, match="100,011 bytes of arguments at once") as caught:
        by_submit_sock(daemon, lambda client: later(client, "x" * 100_000))
    assert type(caught.value) is Refused, "waiting would not help"
    by_submit_sock(daemon, later)
    with daemon.client() as operator:
        later(operator, "x" * 100_000)


def test_the_last_of_the_disk_is_not_for_submitters(daemon_with: Callable[..., Daemon]) -> None:
    daemon = daemon_with(disk_reserve="100000TiB")
    with pytest.raises(LimitReached, match=r"are free in .*, and \[access\] disk_reserve = "):
        by_submit_sock(daemon, later)
    with daemon.client() as operator:
        later(operator)
        problems = operator.status()["problems"]
        assert any("submit.sock accepts nothing new: " in each for each in problems)
    daemon.sections["access"]["disk_reserve"] = "none"
    daemon.write_config()
    daemon.reload("r2")
    by_submit_sock(daemon, later)


def test_priority_has_a_ceiling_for_submitters(daemon_with: Callable[..., Daemon]) -> None:
    daemon = daemon_with()
    with pytest.raises(NotAllowed, match="priority 2147483647 is for operators"):
        by_submit_sock(daemon, lambda client: later(client, priority=2**31 - 1))
    for priority in (0, -5):
        by_submit_sock(daemon, lambda client, p=priority: later(client, priority=p))
    with daemon.client() as operator:
        later(operator, priority=5)
    mine = by_submit_sock(daemon, later)
    with pytest.raises(NotAllowed, match="priority 7 is for operators"):
        by_submit_sock(daemon, lambda client: client.change([mine], priority=7))
    with daemon.client() as operator:
        assert operator.change([mine], priority=7)["done"] == [mine]
    daemon.sections["access"]["max_priority"] = 10
    daemon.write_config()
    daemon.reload("r2")
    by_submit_sock(daemon, lambda client: later(client, priority=10))


@pytest.mark.parametrize(
    "how", [{"key": "k", "key_for": "31d"}, {"named": "n", "named_for": "31d"}]
)
def test_a_submitters_keys_and_names_are_not_kept_for_ever(
    daemon_with: Callable[..., Daemon], how: dict[str, Any]
) -> None:
    """Each is a row that outlives its task."""
    daemon = daemon_with()
    with pytest.raises(NotAllowed, match="_for: 30d at most"):
        by_submit_sock(daemon, lambda client: later(client, **how))
    with daemon.client() as operator:
        later(operator, **how)


def test_owners_take_turns_at_the_same_priority(daemon_with: Callable[..., Daemon]) -> None:
    """Over a deploy and a crash, too."""
    daemon = daemon_with()
    many = by_submit_sock(
        daemon, lambda client: [client.submit("waits").id for _ in range(40)], STRANGER
    )
    daemon.reached(many[0], "waits")
    daemon.reload("r2")
    with daemon.client() as operator:
        mine = operator.submit("waits")
        daemon.kill()
        daemon.start()
        another = by_submit_sock(daemon, lambda client: client.submit("waits").id, OTHER)
        daemon.open_gate("go")
        assert mine.result(30) == 0
        operator.handle(another).wait(30)
        operator.handle(many[-1]).wait(30)
    begun = [effect.task for effect in daemon.effects()]
    assert begun[0] == many[0]
    assert {mine.id, another} <= set(begun[:6]), begun
