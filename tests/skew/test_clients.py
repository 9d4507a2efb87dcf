"""Clients and daemons of two versions: each does what both know, and says what the other lacks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from pythons import NEW, NEXT, OLD, Python
from skewed import Skewed

from taskd import AsyncClient
from taskd.errors import Refused

PAIRS = [(NEW, OLD), (OLD, NEW), (NEW, NEXT), (NEXT, NEW)]
"""Of the daemon and the client."""

OLD_SCRIPT = """
import sys
from taskd import AsyncClient, Client
import asyncio, json

def blocking(path):
    with Client(path) as client:
        task = client.submit("stays", {"n": 2}, key="k", priority=3)
        events = [event["state"] for event in task.follow() if "event" in event]
        found = client.task(task.id)
        late = client.submit("which", delay=3600.0)
        return {
            "events": events,
            "result": task.result(30),
            "listed": [each.id for each in client.tasks(name="stays")] == [task.id],
            "state": found.state,
            "cancelled": late.cancel()["state"],
            "status": client.status()["revision"],
            "revisions": [each["revision"] for each in client.revisions()],
            "log": client.log(task.id)["ended"],
            "reload": client.reload()["revision"],
        }

async def later(path):
    async with AsyncClient(path) as client:
        task = await client.submit("which")
        return await task.result(30)

print(json.dumps([blocking(sys.argv[1]), asyncio.run(later(sys.argv[1]))]))
"""
"""What 0.1 can ask; run by the Python of the client."""


@pytest.fixture
def pair(
    request: pytest.FixtureRequest, skewed: Callable[..., Skewed], pythons: dict[str, Python]
) -> tuple[Skewed, Python]:
    """A daemon of the first version, and the Python of the second."""
    daemon_version, client_version = request.param
    daemon = skewed(pythons[daemon_version])
    for name in ("r1", "r2"):
        daemon.with_app(name)
    daemon.point("r1")
    daemon.start()
    daemon.open_gate("go")
    return daemon, pythons[client_version]


@pytest.mark.parametrize("pair", PAIRS, indirect=True, ids=lambda pair: f"daemon-{pair[0]}")
def test_a_client_of_another_version_does_all_that_both_know(
    pair: tuple[Skewed, Python],
) -> None:
    daemon, python = pair
    done = daemon.run_python(OLD_SCRIPT, daemon.control, python=python)
    assert done.returncode == 0, done.stderr
    told, later = json.loads(done.stdout)
    assert told == {
        "events": ["queued", "running", "succeeded"],
        "result": [2, "r1", daemon.serving()[1]],
        "listed": True,
        "state": "succeeded",
        "cancelled": "cancelled",
        "status": "r1",
        "revisions": ["r1"],
        "log": True,
        "reload": "r1",
    }
    assert later[0] == "r1"


@pytest.mark.parametrize("pair", PAIRS, indirect=True, ids=lambda pair: f"daemon-{pair[0]}")
def test_taskctl_of_another_version_shows_and_deploys(pair: tuple[Skewed, Python]) -> None:
    daemon, python = pair
    task = daemon.taskctl("submit", "stays", "n=2", python=python).stdout.strip()
    for words in (
        ["wait", task],
        ["follow", task],
        ["show", task],
        ["show", "--json", task],
        ["list"],
        ["status"],
        ["status", "--json"],
        ["revisions"],
        ["revisions", "--json"],
        ["logs", task],
        ["cancel", task],
    ):
        done = daemon.taskctl(*words, python=python)
        assert done.returncode == 0, (words, done.stderr)
    daemon.point("r2")
    done = daemon.taskctl("reload", python=python)
    assert (done.returncode, done.stderr) == (0, "")
    assert daemon.serving()[0] == "r2"


ASKED: list[tuple[str, Callable[[Any], Any], list[str]]] = [
    ("reload with plan", lambda c: c.reload(plan=True), ["reload", "--plan"]),
    ("reload with allow_held", lambda c: c.reload(allow_held=True), ["reload", "--allow-held"]),
    ("rollback", lambda c: c.rollback(), ["rollback"]),
    ("drain", lambda c: c.drain("r1"), ["drain", "--revision", "r1"]),
]


@pytest.mark.parametrize("pair", [(OLD, NEW)], indirect=True)
@pytest.mark.parametrize(("what", "ask", "words"), ASKED)
def test_an_old_daemon_is_not_asked_what_it_would_misunderstand(
    pair: tuple[Skewed, Python],
    what: str,
    ask: Callable[[Any], Any],
    words: list[str],
) -> None:
    daemon, python = pair
    daemon.point("r2")
    said = f"taskd {OLD}, which has no {what}"
    with daemon.client() as client, pytest.raises(Refused, match=said):
        ask(client)
    with pytest.raises(Refused, match=said):
        asyncio.run(_later(daemon.control, ask))
    done = daemon.taskctl(*words, python=python)
    assert done.returncode == 1
    assert said in done.stderr
    assert daemon.serving() == ("r1", OLD)


async def _later(path: str, ask: Callable[[Any], Any]) -> Any:
    async with AsyncClient(path) as client:
        await client.status()
        return await ask(client)


@pytest.mark.parametrize("pair", [(OLD, NEW)], indirect=True)
def test_deploy_that_switches_the_symlink_says_that_an_old_daemon_cannot_tell_which(
    pair: tuple[Skewed, Python],
) -> None:
    daemon, python = pair
    done = daemon.taskctl("deploy", daemon.path("releases", "r2"), python=python)
    assert done.returncode == 1
    assert "use `taskctl reload`" in done.stderr
    assert daemon.serving() == ("r1", OLD)
