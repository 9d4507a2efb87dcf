"""Lists of tasks by a real daemon: results, what does not fit in one frame, and the time run."""

from __future__ import annotations

from collections.abc import Callable

from support.daemon import Daemon
from support.waiting import eventually

APP = """
from taskd import task

@task
def large(number: int) -> bytes:
    return bytes([number]) * 900_000

@task
def noisy() -> None:
    raise ValueError("é" * 8000)

@task
def dies() -> None:
    import os
    os.kill(os.getpid(), 9)
"""


def started(new_daemon: Callable[..., Daemon]) -> Daemon:
    daemon = new_daemon(queues={"default": {"concurrency": 4}})
    return daemon.with_releases(APP, "r1").start()


def test_a_list_has_all_results_however_large(new_daemon: Callable[..., Daemon]) -> None:
    daemon = started(new_daemon)
    with daemon.client() as client:
        ids = [client.submit("large", {"number": number}).id for number in range(5)]
        client.wait(ids, 30)
        found = client.tasks(results=True)
        assert [task.id for task in found] == ids[::-1]
        assert [task.result for task in found] == [bytes([n]) * 900_000 for n in (4, 3, 2, 1, 0)]
        assert [task.encoded_result for task in client.tasks()] == [None] * 5


def test_a_list_of_long_errors_is_had_in_parts(new_daemon: Callable[..., Daemon]) -> None:
    daemon = started(new_daemon)
    with daemon.client() as client:
        ids = [client.submit("noisy").id for _ in range(100)]
        client.wait(ids, 30)
        found = client.tasks(limit=1000)
        assert [task.id for task in found] == ids[::-1]
        assert sum(len(str(task.error).encode()) for task in found) > 2 * 1024 * 1024


def test_the_time_that_a_task_ran_stands_still_while_it_is_held(
    new_daemon: Callable[..., Daemon],
) -> None:
    daemon = started(new_daemon)
    with daemon.client() as client:
        task = client.submit("dies")
        held = task.wait(30)
        assert (held.state, held.attempt) == ("held", 3)
        assert held.started is not None and held.ran is not None
        again = eventually(lambda: client.task(task.id))
        assert again.ran == held.ran
        listed = client.tasks()[0]
        assert listed.ran == held.ran
