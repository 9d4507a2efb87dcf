"""What was accepted when a release was deployed (``--allow-held``) refuses no later deploy."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.daemon import Daemon
from support.waiting import eventually

import taskd
from taskd.errors import DeployRefused

APP = """
from taskd import task
from side import gate, mark

@task(version=VERSION)
def stays(ctx):
    for item in ctx.each("items", [1, 2]):
        mark(item)
        if item == 2:
            gate("go")
    return "REVISION"

@task
def called(ARGUMENTS): ...
"""

ONE, TWO = "a=0", "b=0"
"""What ``called`` takes."""


def app(name: str, version: int, arguments: str) -> str:
    text = APP.replace("VERSION", str(version)).replace("REVISION", name)
    return text.replace("ARGUMENTS", arguments)


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    """r8 serves, whose state r1 cannot read; so a rollback is an exception."""
    made = new_daemon()
    for name in ("r1", "r2", "r3"):
        made.release(name, app(name, 1, ONE))
    made.release("r8", app("r8", 2, TWO))
    made.release("other", app("other", 1, "c=0"))
    made.point("r1")
    made.start()
    assert made.reload("r8")["revision"] == "r8"
    return made


@pytest.fixture
def client(daemon: Daemon) -> taskd.Client:
    return daemon.client()


def refused(client: taskd.Client, release: str | None = None) -> str:
    with pytest.raises(DeployRefused) as caught:
        client.reload(release)
    return str(caught.value)


def test_a_running_task_that_was_accepted_refuses_no_later_deploy(
    daemon: Daemon, client: taskd.Client
) -> None:
    running = client.submit("stays")
    daemon.reached(running.id, "2")
    with pytest.raises(DeployRefused, match="what runs finishes where it is"):
        client.rollback()
    client.rollback(allow_held=True)
    daemon.point("r1")
    daemon.sections["daemon"] = {"cancel_grace": "5s"}
    daemon.write_config()
    plan = client.reload()["plan"]  # the serving release's, for its configuration
    assert [(row["task"], row["verdict"]) for row in plan["running"]] == [(running.id, "accepted")]
    assert "finishes on r8 as long as its worker lives" in plan["running"][0]["why"]
    assert daemon.reload("r2")["revision"] == "r2"
    daemon.kill()
    daemon.start()
    assert daemon.reload("r3")["revision"] == "r3"
    daemon.open_gate("go")
    assert running.result(30) == "r8"


def test_what_is_taken_again_must_be_accepted_again(daemon: Daemon, client: taskd.Client) -> None:
    running = client.submit("stays")
    daemon.reached(running.id, "2")
    client.rollback(allow_held=True)
    daemon.release("r9", app("r9", 2, TWO))
    assert daemon.reload("r9")["revision"] == "r9"  # which reads what r8 has saved
    daemon.point("r1")
    assert f"task {running.id} (stays, running): " in refused(client)
    daemon.open_gate("go")


def test_what_waits_and_was_accepted_refuses_no_later_deploy(
    daemon: Daemon, client: taskd.Client
) -> None:
    waiting = client.submit("called", {"b": 1}, delay=3600)
    told = refused(client, daemon.path("releases", "r1"))
    assert "what waits is held for an operator" in told
    client.rollback(allow_held=True)
    client.submit("called", {"a": 1}, delay=3600)
    daemon.point("r1")
    assert client.reload()["plan"]["counts"] == {"accepted": 1, "continues": 1}
    assert daemon.reload("r2")["revision"] == "r2"
    assert "called (waiting)" in refused(client, daemon.path("releases", "other")), "a=1 waits"
    client.cancel(waiting.id)


def test_what_is_held_by_now_is_no_reason_beside_others_of_its_name(
    daemon: Daemon, client: taskd.Client
) -> None:
    """The held one's arguments are refused, the others' are not."""
    client.submit("called", {"b": 1}, delay=3600)
    client.rollback(allow_held=True)
    for _ in range(3):
        client.submit("called", {"a": 1}, delay=3600)
    daemon.kill()
    daemon.start()
    assert daemon.reload("r2")["revision"] == "r2"


SLEEPS = """
from taskd import task

@task(version=VERSION)
def sleeps(ctx):
    ctx.state["saved"] = 1
    ctx.sleep(1_000_000, "long")
"""

CANNOT = """
def cannot(saved):
    raise ValueError("no way")

sleeps.migrate(1)(cannot)
"""


def test_what_waits_and_cannot_be_migrated_is_held_whatever_older_release_lives(
    new_daemon: Callable[..., Daemon],
) -> None:
    """The task would go to the new release, which says that it reads what is saved."""
    daemon = new_daemon()
    daemon.release("r1", SLEEPS.replace("VERSION", "1"))
    for name in ("r2", "r3"):
        daemon.release(name, SLEEPS.replace("VERSION", "2") + CANNOT)
    daemon.point("r1")
    daemon.start()
    with daemon.client(timeout=60) as client:
        client.submit("sleeps")
        eventually(lambda: client.status()["states"]["scheduled"], "it sleeps")
        r2 = daemon.path("releases", "r2")
        told = refused(client, r2)
        assert "1 of sleeps (waiting): the migration" in told and "no way" in told
        client.reload(r2, allow_held=True)
        daemon.point("r2")
        assert client.reload()["plan"]["counts"] == {"accepted": 1}
        assert client.reload(daemon.path("releases", "r3"))["plan"]["counts"] == {"accepted": 1}
        daemon.kill()
        daemon.start()
        assert client.reload(r2)["plan"]["counts"] == {"accepted": 1}
        assert client.reload(daemon.path("releases", "r1"))["plan"]["counts"] == {"continues": 1}
        refused(client, r2)
