"""A taskd that does not know ``Secret`` is never given one: neither as a worker nor as a daemon."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pythons import OLD, Python
from skewed import Skewed

from taskd import Secret
from taskd.errors import BadArguments, DeployRefused, Refused

TAKES = """
@task(on_deploy="checkpoint")
def takes(ctx, token, n=1):
    for i in ctx.each("items", range(n)):
        mark(i)
        gate("go") if i == 0 else None
        ctx.state["token"] = token
    return ["REVISION", type(token).__name__]

@task(on_deploy="checkpoint")
def makes(ctx, n):
    ctx.state["token"] = getattr(taskd, "Secret", str)("x")
    ctx.checkpoint()
    mark("saved")
    until_asked(ctx)
    ctx.checkpoint()
"""


@pytest.fixture
def daemon(skewed: Callable[..., Skewed], new: Python, old: Python) -> Skewed:
    """r1 brings the taskd before, r2 this one."""
    made = skewed(new)
    for name, python in (("r1", old), ("r2", new)):
        path = made.with_app(name, python)
        with open(f"{path or made.path('releases', name)}/app.py", "a", encoding="utf-8") as file:
            file.write(TAKES.replace("REVISION", name))
    return made


def test_submitting_one_to_an_old_release_is_refused_with_the_reason(daemon: Skewed) -> None:
    daemon.point("r1")
    daemon.start()
    with daemon.client() as client:
        with pytest.raises(BadArguments) as caught:
            client.submit("takes", {"token": {"in": [Secret("x")]}, "n": 1})
        assert f"token: r1 runs with taskd {OLD}, which cannot read a Secret" in str(caught.value)
        daemon.open_gate("go")
        assert client.submit("takes", {"token": "plain"}).result(30) == ["r1", "str"]
        daemon.reload("r2")
        assert client.submit("takes", {"token": Secret("x")}).result(30) == ["r2", "Secret"]


def test_deploying_an_old_release_while_one_waits_is_refused_with_the_reason(
    daemon: Skewed,
) -> None:
    daemon.point("r2")
    daemon.start()
    with daemon.client() as client:
        plain = client.submit("takes", {"token": "plain"}, delay=1e6)
        hidden = client.submit("takes", {"token": Secret("x")}, delay=1e6)
        daemon.point("r1")
        rows = client.reload(plan=True)["plan"]["waiting"]
        assert {row["shape"]: row["verdict"] for row in rows} == {
            "token": "continues",
            "token*": "held",
        }
        with pytest.raises(DeployRefused, match=f"holds a Secret, which taskd {OLD} of r1 cannot"):
            client.reload()
        hidden.cancel()
        client.reload()
        assert plain.status().state == "scheduled"


def test_a_task_with_one_goes_to_a_release_that_can_read_it_or_waits(daemon: Skewed) -> None:
    """Such a deploy was allowed to hold tasks. The old release's worker is never sent any."""
    daemon.sections["queues"] = {"default": {"concurrency": 1}}
    daemon.write_config()
    daemon.point("r2")
    daemon.start()
    with daemon.client() as client:
        running = client.submit("takes", {"token": Secret("x")}, queue="default")
        daemon.reached(running.id, "0")
        waiting = client.submit("takes", {"token": Secret("y")}, queue="default")
        daemon.point("r1")
        client.reload(allow_held=True)
        daemon.open_gate("go")
        assert running.wait(60).state in ("held", "succeeded")
        info = waiting.wait(60)
        assert info.state == "held" or info.result == ["r2", "Secret"]
        if info.state == "held":
            assert f"holds a Secret, which taskd {OLD} of r1 cannot read" in str(info.reason)
        assert "SIG" not in daemon.log() and "died" not in daemon.log()
        daemon.reload("r2")
        for task in (running, waiting):
            if task.status().state == "held":
                task.retry()
            assert task.result(60) == ["r2", "Secret"]


def test_state_that_holds_one_does_not_go_to_an_old_release(daemon: Skewed) -> None:
    daemon.point("r2")
    daemon.start()
    with daemon.client() as client:
        task = client.submit("makes", {"n": 1})
        daemon.reached(task.id, "saved")
        daemon.point("r1")
        with pytest.raises(DeployRefused, match=f"holds a Secret, which taskd {OLD} of r1 cannot"):
            client.reload()
        assert task.status().state == "running"
        task.cancel()


def test_an_old_daemon_is_not_sent_one(skewed: Callable[..., Skewed], old: Python) -> None:
    daemon = skewed(old)
    daemon.with_app("r1", old)
    daemon.point("r1")
    daemon.start()
    with daemon.client() as client:
        with pytest.raises(Refused, match=f"is taskd {OLD}, which has no submit with secrets"):
            client.submit("which", {"token": Secret("x")})
        assert client.submit("which").result(30) == ["r1", OLD]
