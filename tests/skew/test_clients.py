"""Clients and daemons of two versions: each does what both know, and says what the other lacks."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from pythons import NEW, NEXT, OLD, Python
from skewed import APP, Skewed

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
"""Run by the Python of the client."""


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


ASKED: list[tuple[str, str, list[str]]] = [
    ("reload with plan", "client.reload(plan=True)", ["reload", "--plan"]),
    ("rollback", "client.rollback()", ["rollback"]),
]

ASK = """
import asyncio, sys
from taskd import AsyncClient, Client
from taskd.errors import Refused

def blocking(path):
    with Client(path) as client:
        try:
            {ask}
        except Refused as error:
            print(error)

async def later(path):
    async with AsyncClient(path) as client:
        await client.status()
        try:
            await {ask}
        except Refused as error:
            print(error)

blocking(sys.argv[1])
asyncio.run(later(sys.argv[1]))
"""


@pytest.mark.parametrize("pair", [(NEW, NEXT)], indirect=True)
@pytest.mark.parametrize(("what", "ask", "words"), ASKED)
def test_an_old_daemon_is_not_asked_what_it_would_misunderstand(
    pair: tuple[Skewed, Python], what: str, ask: str, words: list[str]
) -> None:
    """To the next version, these requests are new."""
    daemon, python = pair
    daemon.point("r2")
    said = f"taskd {NEW}, which has no {what}"
    asked = daemon.run_python(ASK.format(ask=ask), daemon.control, python=python)
    assert [said in line for line in asked.stdout.splitlines()] == [True, True], asked
    done = daemon.taskctl(*words, python=python)
    assert done.returncode == 1
    assert said in done.stderr
    assert daemon.serving() == ("r1", NEW)


SECRETS = """
import sys
from taskd import Client, Secret
with Client(sys.argv[1]) as client:
    print(client.submit("takes", {"token": Secret("hunter2")}).result(30))
"""

TAKES = """
@task
def takes(token):
    return [type(token).__name__, token.reveal(), token]
"""


@pytest.mark.parametrize("pair", PAIRS, indirect=True, ids=lambda pair: f"daemon-{pair[0]}")
def test_a_secret_goes_there_and_back(pair: tuple[Skewed, Python]) -> None:
    daemon, python = pair
    daemon.with_app("r3", app=APP + TAKES)
    daemon.reload("r3")
    done = daemon.run_python(SECRETS, daemon.control, python=python)
    assert done.stdout == "['Secret', 'hunter2', Secret('••••')]\n", done.stderr


VERBS = [
    ["reload", "--plan"],
    ["reload", "--allow-held"],
    ["drain"],
    ["drain", "--revision", "r1"],
    ["doctor"],
    ["doctor", "--json"],
    ["list", "--json"],
    ["logs", "1"],
    ["rollback"],
    ["deploy", "r2"],
]


@pytest.mark.parametrize("pair", [(OLD, NEW), (NEW, OLD)], indirect=True, ids=["old", "new"])
def test_taskctl_and_a_daemon_of_the_version_before_do_all_that_there_is(
    pair: tuple[Skewed, Python],
) -> None:
    """Plans, deploys by the symlink, a rollback, a drain: nothing is refused for a version."""
    daemon, python = pair
    with daemon.client() as client:
        client.submit("which").result(30)
        client.submit("stays", {"n": 1})
        daemon.point("r2")
        daemon.reload("r2")
    for words in VERBS:
        done = daemon.taskctl(*words, python=python)
        assert "has no" not in done.stderr, (words, done)
        assert done.returncode == 0 or words[0] == "drain", (words, done)
    assert daemon.serving()[0] == "r2"
