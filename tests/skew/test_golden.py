"""What other versions left behind is still read: a state directory, snapshots, worker messages.

The samples of single formats (slot, saved state, plain data, client frames) are tested where the
format is, in tests/unit: test_slot_reader, test_saved, test_data, test_client_protocol,
test_snapshot.
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
from skewed import Skewed

from taskd.protocol import frames
from taskd.protocol.worker import check
from taskd.store.api import SCHEMA
from taskd.upgrade import snapshot
from taskd.upgrade.snapshot import Carried

# ── a whole state directory ──────────────────────────────────────────────────────────────────


@pytest.fixture
def daemon(skewed: Callable[..., Skewed], new: Python) -> Skewed:
    """On the state that a daemon of 0.1.0, killed in the midst of its work, left (``record``)."""
    made = skewed(new, queues={"narrow": {"concurrency": 1}})
    shutil.unpack_archive(GOLDEN / f"state-{OLD}.tar.gz", made.root)
    made.with_app("r3")
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
        daemon.reached(7, "0")
        client.cancel(7)
        client.handle(7).wait(30)
        states = {task.id: task.state for task in client.tasks()}
        assert states == {
            1: "succeeded",
            2: "succeeded",
            3: "failed",
            4: "cancelled",
            5: "scheduled",
            6: "succeeded",
            7: "cancelled",
            8: "held",
        }
        assert client.task(2).result == ["r1", OLD]
        assert client.task(3).error is not None
        assert "died 3 times" in str(client.task(8).reason)
        assert client.submit("which", delay=1e9, key="later", priority=5).id == 5
        assert client.submit("which").id == 9
        client.cancel(5)
    assert daemon.items(1) == ["0", "1", "2", "3"], "the step of the first attempt is kept"
    assert daemon.items(6) == ["1"]


# ── snapshots ────────────────────────────────────────────────────────────────────────────────

LOAD = """
import json, sys
from taskd.handoff import adopt, load
from taskd.takeover import trial
from taskd.upgrade import snapshot

taken = snapshot.decode(open(sys.argv[1], "rb").read())
handed = load.entries(taken)
for entry in handed:
    trial._stand_in(entry.fd, entry.kind.value)
adopt.check_kinds(handed)
master = load.Loader(taken).load()
sys.stdout.write(json.dumps({
    "release": master.config.app.release,
    "state": master.places.state,
    "revisions": [[r.name, r.state.value, r.number, sorted(r.tasks), bool(r.channel), r.app.probe]
                  for r in master.revisions],
    "workers": [[w.revision.name, w.state.value, w.running and [w.running.task, w.running.name],
                 w.version, w.slot_fd >= 0] for w in master.workers],
    "clients": [[c.number, c.uid, c.is_control, c.side.rest.hex(),
                 [[s.tasks, s.after] for s in master.streams.of(c)]] for c in master.clients],
    "deploy": [master.deploy.phase.value, master.deploy.target.name,
               [[c.client, c.request] for c in master.deploy.callers]],
    "rejected": master.revisions.rejected,
    "after_drain": master.after_drain.previous,
    "note": master.note,
}))
"""

TASKS = ["alongside", "always_dies", "command", "dies", "fails", "moves", "returns_an_object"]
TASKS += ["stays", "travels", "which"]


def loaded(path: Path) -> dict[str, Any]:
    """What the current code makes of a snapshot; in a process whose descriptors are its own."""
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def expected(version: str) -> dict[str, Any]:
    protocol = 1 if version == OLD else 2
    probe = [["r2", "idle", None, 2, True]] if version != OLD else []
    return {
        "release": "/srv/shop/current",
        "state": "/srv/shop/state",
        "revisions": [
            ["r1", "current", 1, TASKS, True, None],
            ["r2", "proven", 2, TASKS, True, None],
        ],
        "workers": [
            ["r1", "running", [1, "stays"], protocol, True],
            ["r1", "running", [6, "travels"], protocol, True],
            *probe,
        ],
        "clients": [
            [2, 0, True, "000001", [[[1, 5], 11]]],
            [3, 0, True, "", []],
            [7, 0, True, "", []],
        ],
        "deploy": ["adopting", "r2", [[7, 1]]],
        "rejected": [],
        "after_drain": None,
        "note": "",
    }


@pytest.mark.parametrize("version", [OLD, NEW])
def test_a_live_snapshot_of_that_version_is_adopted_whole(version: str) -> None:
    assert loaded(GOLDEN / f"snapshot-{version}.bin") == expected(version)


@pytest.mark.parametrize("version", [OLD, NEW])
def test_fields_of_a_later_version_change_nothing(version: str, tmp_path: Path) -> None:
    taken = snapshot.decode((GOLDEN / f"snapshot-{version}.bin").read_bytes())
    carried = Carried()
    carried.put(b"\0\0\1")
    (tmp_path / "snapshot").write_bytes(snapshot.encode(with_more(taken.fields), carried))
    assert loaded(tmp_path / "snapshot") == expected(version)


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
    for version in (OLD, NEW):
        raw = (GOLDEN / f"snapshot-{version}.bin").read_bytes()
        assert snapshot.decode(raw).fields["version"] == 1
    assert (snapshot.VERSION, SCHEMA) == (1, 1)


# ── messages of workers and zygotes ──────────────────────────────────────────────────────────

ID = bytes(range(16))

SINCE_2: list[dict[str, Any]] = [
    {"type": "hello", "role": "worker", "version": 2, "id": ID, "pid": 42, "start": 8,
     "slot": ID.hex() + ".slot", "busy": None},
    {"type": "manifest", "taskd": "0.2.0", "python": "3.11.2", "forks": True, "warnings": [],
     "tasks": {"work": {"version": 2, "queue": "default", "retries": 3, "on_deploy": "checkpoint",
                        "params": [["path", True]], "any": False, "reads": [1, 2],
                        "names": ["rows", "total"]}}},
    {"type": "planned", "checked": 2, "migrated": 1, "refused": [[1, "no such task"]],
     "probe": None},
]  # fmt: skip
"""What version 2 says and version 1 did not."""


def test_messages_of_the_second_version_of_the_worker_protocol_are_read() -> None:
    lines = (GOLDEN / "worker-2.hex").read_text().split()
    decoder = frames.Decoder()
    decoder.feed(b"".join(map(bytes.fromhex, lines)))
    found = [decoder.next() for _ in SINCE_2]
    assert found == SINCE_2
    for message in SINCE_2:
        check(message)
        check(message | {"of_tomorrow": 1})
