"""Recorded once: ``python tests/skew/record.py DIRECTORY VERSION`` (a new one, such as /srv/shop).

Lets a daemon of that version live there, and writes snapshot-VERSION.bin, what it handed to its
next image, and state-VERSION.tar.gz, the state directory that a kill -9 of everything then left,
into tests/golden. They are the past: what they are tested for is in ``test_golden``.
"""

from __future__ import annotations

import os
import sys
import tarfile
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from pythons import GOLDEN, Python
from skewed import APP, Skewed
from support.users import OTHER, STRANGER, as_user, gid, groups_here
from support.waiting import eventually

import taskd
from taskd import Secret

KEEP = """

def _keep(raw, seal=seal):
    with open({path!r}, "wb") as file:
        file.write(raw)
    return seal(raw)

seal = _keep
"""


(SUBMITTERS,) = groups_here(1)

MORE = """
@task
def keeps(ctx, token):
    ctx.state["token"] = token
    ctx.checkpoint()
    mark("saved")
    gate("go")
    return ["REVISION", type(token).__name__, ctx.state["token"] == token]

@task
def gives_back(token):
    return token

@task
def sleeps(ctx):
    ctx.step("first", mark, "first")
    ctx.state["dreams"] = 1
    ctx.sleep(3600, "nap")
    return ctx.state["dreams"]
"""
"""What the app has besides that of the other tests of version skew."""


def main(directory: str, version: str) -> None:
    tempfile.mkdtemp = lambda **_: os.makedirs(directory) or directory  # type: ignore[assignment]
    python = Python(Path(directory) / "venv")
    daemon = Skewed(
        python,
        queues={"narrow": {"concurrency": 1}},
        app={"tasks_per_worker": 7},
        access={"submit_groups": [SUBMITTERS]},
    )
    python.make().install(version)
    with (python.library / "taskd" / "upgrade" / "snapshot.py").open("a") as file:
        file.write(KEEP.format(path=str(GOLDEN / f"snapshot-{version}.bin")))
    try:
        _live(daemon)
        with tarfile.open(GOLDEN / f"state-{version}.tar.gz", "w:gz") as tar:
            tar.add(daemon.path("state"), "state")
    finally:
        daemon.clean_up()


def _live(daemon: Skewed) -> None:
    for name in ("r1", "r2"):
        daemon.with_app(name, app=APP + MORE)
    daemon.point("r1")
    daemon.start()
    with daemon.client() as client, daemon.raw() as follower:
        stays = client.submit("stays", {"n": 4})  # 1: runs on r1
        daemon.reached(stays.id, "0")
        client.submit("which").result(30)  # 2: succeeded
        client.submit("fails").wait(30)  # 3: failed
        client.submit("which", delay=1e9).cancel()  # 4: cancelled
        client.submit("which", delay=1e9, key="later", priority=5)  # 5: scheduled
        travels = client.submit("travels", {"n": 2}, queue="narrow")  # 6: leaves r1, runs on r2
        daemon.open_gate("item-0")
        daemon.reached(travels.id, "0")
        client.submit("moves", {"n": 1}, queue="narrow")  # 7: queued
        client.submit("always_dies").wait(60)  # 8: held
        follower.start("follow", tasks=[stays.id, 5], progress=True)
        follower.send(b"\0\0\1")  # the beginning of a frame
        client.submit("gives_back", {"token": Secret("hunter2")}).result(30)  # 9: succeeded
        keeps = client.submit("keeps", {"token": Secret("hunter2")})  # 10: runs on r1
        daemon.reached(keeps.id, "saved")
        sleeps = client.submit("sleeps")  # 11: scheduled, having begun
        daemon.reached(sleeps.id, "first")
        eventually(lambda: sleeps.status().state == "scheduled", "it sleeps")
        for number, user in enumerate((STRANGER, OTHER, OTHER + 1, STRANGER)):
            _submit_as(daemon, user, number)  # 12 to 23: each three, of which one is queued
        daemon.reload("r2")
        daemon.reached(travels.id, "1")
        daemon.kill_everything()


def _submit_as(daemon: Skewed, user: int, number: int) -> None:
    def submit() -> None:
        with taskd.Client(daemon.submit_socket, timeout=30) as client:
            client.submit("which").result(30)
            client.submit("which", delay=1e9, key=f"key {number}")
            client.submit("moves", {"n": 1}, queue="narrow", priority=-(number % 2))

    as_user(user, [gid(SUBMITTERS)], submit)


if __name__ == "__main__":
    main(*sys.argv[1:])
