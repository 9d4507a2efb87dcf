"""What the version before left behind is still read: a state directory, a snapshot.

The samples of single formats (slot, saved state, plain data, frames of clients and workers) are
tested where the format is, in tests/unit.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pythons import GOLDEN, NEW, OLD, Python
from record import MORE
from skewed import APP, Skewed

from taskd import Secret
from taskd.store.api import SCHEMA
from taskd.upgrade import snapshot
from taskd.upgrade.snapshot import Carried

# ── a whole state directory ──────────────────────────────────────────────────────────────────


@pytest.fixture
def daemon(skewed: Callable[..., Skewed], new: Python) -> Skewed:
    """On the state that a daemon of 0.2.0, killed in the midst of its work, left (``record``)."""
    made = skewed(new, queues={"narrow": {"concurrency": 1}})
    shutil.unpack_archive(GOLDEN / f"state-{OLD}.tar.gz", made.root)
    made.with_app("r3", app=APP + MORE)
    made.point("r3")
    return made


def test_a_daemon_goes_on_from_the_state_that_a_killed_one_of_the_version_before_left(
    daemon: Skewed,
) -> None:
    daemon.open_gate("go")
    daemon.open_gate("item-1")
    daemon.start("--release", daemon.path("releases", "r3"))
    with daemon.client() as client:
        assert client.handle(1).result(30) == [4, "r3", NEW]
        assert client.handle(6).result(30) == ["r1", "r3"]
        assert client.handle(10).result(30) == ["r3", "Secret", True]
        assert client.handle(11).result(30) == 1, "its sleep is over, long ago"
        for number in (7, 14, 20, 17, 23):  # by priority, and in turns between their users
            daemon.reached(number, "0")
            client.cancel(number)
            client.handle(number).wait(30)
        states = {task.id: (task.state, task.owner) for task in client.tasks()}
        assert states == STATES
        assert client.task(2).result == ["r1", OLD]
        assert client.task(3).error is not None
        assert "died 3 times" in str(client.task(8).reason)
        assert client.task(9).result == Secret("hunter2")
        assert client.submit("which", delay=1e9, key="later", priority=5).id == 5
        assert [event["state"] for event in client.handle(12).follow()] == [
            "queued",
            "running",
            "succeeded",
        ]
        assert client.submit("which").id == 24
        client.cancel(5)
    assert daemon.items(1) == ["0", "1", "2", "3"], "the step of the first attempt is kept"
    assert daemon.items(6) == ["1"]
    assert daemon.items(10) == ["saved"]
    assert daemon.items(11) == [], "the step before its sleep is kept"


STATES = {
    **dict.fromkeys((1, 2, 6, 9, 10, 11), ("succeeded", 0)),
    3: ("failed", 0),
    4: ("cancelled", 0),
    7: ("cancelled", 0),
    8: ("held", 0),
    5: ("scheduled", 0),
    **{
        first + nth: (state, user)
        for first, user in ((12, 54321), (15, 54322), (18, 54323), (21, 54321))
        for nth, state in enumerate(("succeeded", "scheduled", "cancelled"))
    },
}
"""What has become of each task, and whose it is."""


# ── snapshots ────────────────────────────────────────────────────────────────────────────────

SNAPSHOT = GOLDEN / f"snapshot-{OLD}.bin"

LOAD = """
import json, sys
from taskd.handoff import adopt, load
from taskd.upgrade import snapshot

taken = snapshot.decode(open(sys.argv[1], "rb").read())
handed = load.entries(taken)
for entry in handed:
    adopt._stand_in(entry)
adopt.check_kinds(handed)
master = load.Loader(taken).load()
sys.stdout.write(json.dumps({
    "release": master.config.app.release,
    "state": master.places.state,
    "revisions": [[r.name, r.state.value, r.number, sorted(r.tasks), bool(r.zygote.channel),
                   r.app.probe] for r in master.revisions],
    "workers": [[w.revision.name, w.state.value, w.running and [w.running.task, w.running.name],
                 w.slot_fd >= 0] for w in master.workers],
    "clients": [[c.number, c.uid, c.is_control, c.side.rest.hex(),
                 [[s.tasks, s.after] for s in master.streams.of(c)]] for c in master.clients],
    "deploy": [master.deploy.progress.phase.value, master.deploy.target.name,
               [[c.client, c.request] for c in master.deploy.callers]],
    "rejected": master.revisions.rejected,
    "after_drain": master.after_drain.previous,
    "note": master.life.note,
}))
"""

TASKS = ["alongside", "always_dies", "command", "dies", "fails", "gives_back", "keeps", "moves"]
TASKS += ["returns_an_object", "sleeps", "stays", "travels", "which"]


def loaded(path: Path) -> dict[str, Any]:
    """What the current code makes of a snapshot; in a process whose descriptors are its own."""
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


EXPECTED = {
    "release": "/srv/shop/current",
    "state": "/srv/shop/state",
    "revisions": [
        ["r1", "current", 1, TASKS, True, None],
        ["r2", "proven", 2, TASKS, True, None],
    ],
    "workers": [
        ["r1", "running", [1, "stays"], True],
        ["r1", "running", [6, "travels"], True],
        ["r1", "running", [10, "keeps"], True],
        ["r1", "idle", None, True],
        ["r2", "idle", None, True],
    ],
    "clients": [
        [2, 0, True, "000001", [[[1, 5], 11]]],
        [3, 0, True, "", []],
        [16, 0, True, "", []],
    ],
    "deploy": ["adopting", "r2", [[16, 1]]],
    "rejected": [],
    "after_drain": None,
    "note": "",
}


def test_a_live_snapshot_of_the_version_before_is_adopted_whole() -> None:
    assert loaded(SNAPSHOT) == EXPECTED


def test_fields_of_a_later_version_change_nothing(tmp_path: Path) -> None:
    taken = snapshot.decode(SNAPSHOT.read_bytes())
    carried = Carried()
    carried.put(b"\0\0\1")
    (tmp_path / "snapshot").write_bytes(snapshot.encode(with_more(taken.fields), carried))
    assert loaded(tmp_path / "snapshot") == EXPECTED


def with_more(value: Any, name: str = "") -> Any:
    """One field more in every map but those whose keys are the user's."""
    if isinstance(value, list):
        return [with_more(each, name) for each in value]
    if not isinstance(value, dict) or name in ("config", "tasks"):
        return value
    more = {key: with_more(each, key) for key, each in value.items()}
    return more | {"of_tomorrow": {"a": [1]}}


def test_snapshot_and_schema_are_stamped_with_the_lowest_version_that_can_say_it() -> None:
    """What was added since can be left out: the version before could read them all."""
    assert snapshot.decode(SNAPSHOT.read_bytes()).fields["version"] == 1
    assert (snapshot.VERSION, SCHEMA) == (1, 1)
