"""The concurrency of a queue for now, over a deploy, a kill and a rollback of the release."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from support.daemon import Daemon
from support.waiting import eventually

import taskd
from taskd.errors import NotAllowed, Refused

APP = """
from taskd import task
from side import gate, mark

@task(queue="mail")
def sends(n: int) -> str:
    mark(n)
    gate(f"end{n}")
    return "REVISION"
"""


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    made = new_daemon(queues={"mail": {"concurrency": 1}})
    return made.with_releases(APP, "r1", "r2").start()


def test_a_concurrency_for_now_holds_over_deploys_and_kills_until_its_time_is_over(
    daemon: Daemon,
) -> None:
    with daemon.client() as client:
        tasks = [client.submit("sends", {"n": n}) for n in range(6)]
        daemon.reached(tasks[0].id, "0")

        def states() -> list[str]:
            return [task.status().state for task in tasks]

        assert states() == ["running", *["queued"] * 5]
        said = daemon.said("concurrency", "mail", 3, "--for", "2h", "--why", "a rush")
        assert said == "queue mail: 3 for 2h00m\n"
        for n in (1, 2):
            daemon.reached(tasks[n].id, str(n))
        daemon.reload("r2")
        daemon.kill()
        daemon.start()
        assert states() == [*["running"] * 3, *["queued"] * 3]
        status = daemon.said("status")
        assert "queue 'mail' has concurrency 3 until" in status and "a rush" in status
        assert json.loads(daemon.said("status", "--json"))["queues"]["mail"]["concurrency"] == 3
        daemon.open_gate("end0")
        daemon.reached(tasks[3].id, "3")
        said = daemon.said("concurrency", "mail", "--reset")
        assert said == "queue mail: 1, as taskd.toml says\n"
        client.set_concurrency("mail", 5, seconds=0.5)
        for n in (4, 5):
            daemon.reached(tasks[n].id, str(n))
        late = client.submit("sends", {"n": 6})
        eventually(lambda: client.status()["queues"]["mail"]["concurrency"] == 1, "it is over")
        for n in range(1, 5):
            daemon.open_gate(f"end{n}")
        eventually(lambda: states()[1:] == [*["succeeded"] * 4, "running"], "they end")
        assert late.status().state == "queued"
        daemon.open_gate("end5")
        daemon.reached(late.id, "6")
        daemon.open_gate("end6")
        assert late.result(30) == "r2"


def test_a_concurrency_is_set_by_operators_of_queues_that_there_are(daemon: Daemon) -> None:
    with daemon.client() as client, taskd.Client(daemon.submit_socket) as other:
        with pytest.raises(Refused, match="no queue 'mial'"):
            client.set_concurrency("mial", 3)
        with pytest.raises(NotAllowed, match="only an operator"):
            other.set_concurrency("mail", 3)
        assert client.set_concurrency("mail", None) == {"was": False}
