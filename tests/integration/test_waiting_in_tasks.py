"""Tasks that wait for others which they have submitted, also where there is no place for those."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.daemon import Daemon
from support.waiting import eventually

APP = """
import threading
from taskd import Client, task
from side import gate, mark

@task(queue="one")
def child() -> str:
    return "of one"

@task(queue="two")
def child_of_two() -> str:
    return "of two"

@task(queue="one")
def waits(name: str) -> str:
    return Client().submit(name).result()

@task(queue="one")
def waits_for_a_while() -> str:
    try:
        return Client().submit("child").result(timeout=0.2)
    except TimeoutError:
        return "not in time"

@task(queue="one")
def waits_in_a_thread() -> str:
    def wait():
        mark("waits")
        Client().submit("child").result()
    threading.Thread(target=wait, daemon=True).start()
    gate("go")
    return "went on"

@task(queue="two")
def waits_in_two(gated: str, name: str = "child_of_two") -> str:
    handle = Client().submit(name)
    mark(f"submitted-{handle.id}")
    gate(gated)
    mark("waits")
    return handle.result()

@task(queue="two")
def waits_within() -> str:
    return waits_in_two("inner")
"""

WHY = "whose places are all taken by tasks that wait for such ones"


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    made = new_daemon(queues={"one": {"concurrency": 1}, "two": {"concurrency": 2}})
    return made.with_releases(APP, "r1", "r2").start()


def test_a_wait_that_could_never_end_is_refused(daemon: Daemon) -> None:
    client = daemon.client()
    info = client.submit("waits", {"name": "child"}).wait(30)
    assert info.error is not None
    assert (info.state, info.error["type"]) == ("failed", "Refused")
    assert f"task 2 waits for a place in queue 'one', {WHY}" in info.error["message"]
    assert client.handle(2).result(30) == "of one", "the place is free now"


def test_a_wait_for_a_task_of_another_queue_is_none_of_these(daemon: Daemon) -> None:
    task = daemon.client().submit("waits", {"name": "child_of_two"})
    assert task.result(30) == "of two"


def test_a_wait_with_a_timeout_ends_by_itself(daemon: Daemon) -> None:
    assert daemon.client().submit("waits_for_a_while").result(30) == "not in time"


def test_what_waits_beside_the_task_is_not_refused(daemon: Daemon) -> None:
    task = daemon.client().submit("waits_in_a_thread")
    daemon.reached(task.id, "waits")
    eventually(lambda: len(daemon.client().tasks()) == 2, "the other one is submitted")
    daemon.open_gate("go")
    assert task.result(30) == "went on"
    assert WHY not in daemon.task_log(task.id)


@pytest.mark.parametrize("deploys", [False, True])
def test_the_last_of_those_that_wait_for_each_other_is_told(daemon: Daemon, deploys: bool) -> None:
    """It fails, and the others go on; also where a deploy comes between their waits."""
    client = daemon.client()
    first, second = (client.submit("waits_in_two", {"gated": gate}) for gate in ("first", "second"))
    for task in (first, second):
        eventually(lambda task=task: daemon.effects(task.id), "it has submitted its own")
    daemon.open_gate("first")
    if deploys:
        daemon.reload("r2")
    daemon.open_gate("second")
    ends = sorted((first.wait(30), second.wait(30)), key=lambda info: info.state)
    assert [info.state for info in ends] == ["failed", "succeeded"]
    assert ends[0].error is not None
    assert WHY in ends[0].error["message"]


@pytest.mark.parametrize("order", ["outer inner", "inner outer"])
def test_so_is_the_last_of_those_that_wait_one_for_the_next(daemon: Daemon, order: str) -> None:
    client = daemon.client()
    outer = client.submit("waits_in_two", {"gated": "outer", "name": "waits_within"})
    tasks = {"outer": outer.id, "inner": outer.id + 1}
    for task in tasks.values():
        eventually(lambda task=task: daemon.effects(task), "it has submitted its own")
    for name in order.split():
        daemon.open_gate(name)
        daemon.reached(tasks[name], "waits")
    assert client.handle(outer.id + 2).result(30) == "of two"
    ends = [client.handle(task).wait(30) for task in tasks.values()]
    assert sum(WHY in str(each.error) for each in ends) >= 1
