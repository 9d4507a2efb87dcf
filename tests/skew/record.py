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
from skewed import Skewed

KEEP = """

def _keep(raw, seal=seal):
    with open({path!r}, "wb") as file:
        file.write(raw)
    return seal(raw)

seal = _keep
"""


def main(directory: str, version: str) -> None:
    tempfile.mkdtemp = lambda **_: os.makedirs(directory) or directory  # type: ignore[assignment]
    python = Python(Path(directory) / "venv")
    daemon = Skewed(python, queues={"narrow": {"concurrency": 1}}, app={"tasks_per_worker": 7})
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
        daemon.with_app(name)
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
        daemon.reload("r2")
        daemon.reached(travels.id, "1")
        daemon.kill_everything()


if __name__ == "__main__":
    main(*sys.argv[1:])
