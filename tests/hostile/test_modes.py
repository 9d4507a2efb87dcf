"""Files and directories: the tightest modes that work, and no name that others have planted.

The links are real, planted before the daemon uses the name; ``test_swapped_names`` has those that
another user swaps meanwhile.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.daemon import Daemon
from support.users import STRANGER, groups_here
from support.waiting import eventually

import taskd
from taskd.errors import DeployRefused, Refused

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")

APP = """
import os
from taskd import Context, task
from side import gate

@task(on_deploy="checkpoint")
def works(ctx: Context, blob: str = "") -> str:
    print("something")
    with open(os.path.join(ctx.scratch, "mine"), "w") as file:
        file.write("x")
    ctx.state["n"] = 1
    ctx.checkpoint()
    gate("go")
    return "done"
"""


class Fresh(Daemon):
    """Makes its directories itself, in one that is there; started with a ``umask``."""

    umask = 0o022

    def environment(self) -> dict[str, str]:
        for name in ("state", "run", "logs"):
            if not os.path.lexists(self.path(name)):
                continue
            if stat.S_ISDIR(os.lstat(self.path(name)).st_mode) and not os.listdir(self.path(name)):
                os.rmdir(self.path(name))
        return super().environment()

    def spawn(self, *arguments: str) -> Any:
        before = os.umask(self.umask)
        try:
            return super().spawn(*arguments)
        finally:
            os.umask(before)


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    made = new_daemon(kind=Fresh, access={"submit_groups": groups_here(1)})
    made.release("r1", APP)
    made.release("r2", APP)
    made.release("broken", "raise RuntimeError('broken')")
    made.point("r1")
    return made


# ── modes ────────────────────────────────────────────────────────────────────────────────────

MODES = {
    "state": 0o700,
    "state/after-drain": 0o600,
    "state/confirmed": 0o600,
    "state/lock": 0o600,
    "state/proved": 0o700,
    "state/proved/HASH": 0o600,
    "state/rejected": 0o600,
    "state/scratch": 0o700,
    "state/scratch/N": 0o700,
    "state/slots": 0o700,
    "state/slots/ID.slot": 0o600,
    "state/slots/ID.load": 0o600,
    "state/slots/ID.plan": 0o600,
    "state/store.db": 0o600,
    "state/store.db-shm": 0o600,
    "state/store.db-wal": 0o600,
    "state/zygotes": 0o700,
    "state/zygotes/ID.zygote": 0o600,
    "logs": 0o700,
    "logs/N.log": 0o600,
    "run": 0o755,
    "run/control.sock": 0o600,
    "run/submit.sock": 0o666,
    "run/worker.sock": 0o600,
}
"""The list in ``taskd.paths``, of what a daemon with submit_groups and without --detach has."""


def found(daemon: Daemon) -> dict[str, int]:
    """The modes of all there is, the names that are made up replaced; a task's own files not."""
    modes: dict[str, int] = {}
    for top in ("state", "logs", "run"):
        for where, folders, files in os.walk(daemon.path(top)):
            inner = os.path.relpath(where, daemon.root)
            if inner.startswith("state/scratch/"):
                files.clear()
                folders.clear()
                inner = "state/scratch/N"
            modes[inner] = stat.S_IMODE(os.stat(where).st_mode)
            for name in files:
                if name.endswith(".new"):
                    continue  # it is being made
                shown = general(name)
                try:
                    modes[f"{inner}/{shown}"] = stat.S_IMODE(os.lstat(f"{where}/{name}").st_mode)
                except FileNotFoundError:
                    continue
    return modes


def general(name: str) -> str:
    stem, dot, kind = name.rpartition(".")
    if dot and len(stem) == 32:
        return f"ID.{kind}"
    if len(name) == 16 and not dot:
        return "HASH"
    return f"N.{kind}" if dot and stem.isdigit() else name


@pytest.mark.parametrize("umask", [0, 0o002, 0o077])
def test_modes_are_as_listed_whatever_the_umask_is(daemon: Daemon, umask: int) -> None:
    Fresh.umask = umask
    try:
        daemon.start()
    finally:
        Fresh.umask = 0o022
    small = daemon.client().submit("works")
    large = daemon.client().submit("works", {"blob": "x" * 500_000})
    tasks = (small.id, large.id)
    eventually(lambda: all("something" in log_of(daemon, each) for each in tasks), "they run")
    with pytest.raises(DeployRefused):
        daemon.reload("broken")
    daemon.reload("r2")
    modes = found(daemon)
    assert set(modes) >= {"state/slots/ID.slot", "state/rejected", "logs/N.log", "state/scratch/N"}
    assert {name: oct(mode) for name, mode in modes.items()} == {
        name: oct(MODES[name]) for name in modes
    }
    daemon.open_gate("go")
    assert [task.result(30) for task in (small, large)] == ["done", "done"]


def log_of(daemon: Daemon, task: int) -> str:
    return bytes(daemon.client().log(task)["data"]).decode()


def test_what_is_there_with_a_loose_mode_is_closed(daemon: Daemon) -> None:
    """An older daemon, or a restored backup, may have left them so."""
    for name in ("state", "logs"):
        os.makedirs(daemon.path(name), exist_ok=True)
        os.chmod(daemon.path(name), 0o755)
    Path(daemon.path("logs", "1.log")).touch()
    os.chmod(daemon.path("logs", "1.log"), 0o666)
    daemon.start()
    task = daemon.client().submit("works")
    eventually(lambda: "something" in log_of(daemon, task.id), "it runs")
    assert found(daemon)["logs/N.log"] == 0o600
    daemon.open_gate("go")
    assert task.result(30) == "done"


# ── directories of others ────────────────────────────────────────────────────────────────────


def refusal(daemon: Daemon) -> str:
    """What `taskd run` says; it must exit with 1."""
    process = daemon.spawn()
    assert process.wait(60) == 1
    return daemon.log()


@pytest.mark.parametrize("name", ["state", "run", "logs"])
@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o775, 0o770])
def test_a_directory_that_others_may_write_to_is_refused(
    daemon: Daemon, name: str, mode: int
) -> None:
    os.makedirs(daemon.path(name), exist_ok=True)
    Path(daemon.path(name), "keep").touch()
    os.chmod(daemon.path(name), mode)
    path = daemon.path(name)
    assert f"others may write to {path} (mode {mode:04o})" in (said := refusal(daemon))
    assert f"chmod go-w {path}" in said


@needs_root
@pytest.mark.parametrize("name", ["state", "run", "logs"])
def test_a_directory_of_another_user_is_refused(daemon: Daemon, name: str) -> None:
    path = daemon.path(name)
    os.makedirs(path, exist_ok=True)
    Path(path, "keep").touch()
    os.chown(path, STRANGER, -1)
    said = refusal(daemon)
    assert f"{path} belongs to user {STRANGER}, and the daemon runs as user 0" in said
    assert f"chown {path}" in said


@needs_root
def test_so_is_one_below_a_directory_of_another_user_or_of_everybody(
    daemon: Daemon, tmp_path: Path
) -> None:
    os.makedirs(daemon.path("state"), exist_ok=True)
    Path(daemon.path("state"), "keep").touch()
    os.chown(daemon.root, STRANGER, -1)
    said = refusal(daemon)
    assert f"{daemon.root}, which {daemon.path('state')} goes through," in said
    os.chown(daemon.root, 0, -1)
    os.chmod(daemon.root, 0o777)
    assert f"anybody may write to {daemon.root}" in refusal(daemon)
    os.chmod(daemon.root, 0o755)
    daemon.start()


@needs_root
def test_a_link_to_a_directory_counts_if_it_is_ours(daemon: Daemon, tmp_path: Path) -> None:
    """/var/lib/taskd may be a link: systemd makes one itself, for DynamicUser."""
    real = tmp_path / "elsewhere"
    real.mkdir(mode=0o700)
    os.rmdir(daemon.path("state"))
    os.symlink(real, daemon.path("state"))
    os.lchown(daemon.path("state"), STRANGER, -1)
    assert f"{daemon.path('state')} belongs to user {STRANGER}" in refusal(daemon)
    os.lchown(daemon.path("state"), 0, -1)
    daemon.start()
    assert (real / "store.db").exists()


# ── names that were planted ──────────────────────────────────────────────────────────────────


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Path]:
    """A file that no task and no daemon has anything to do with."""
    file = tmp_path / "victim"
    file.write_text("precious")
    file.chmod(0o640)
    yield file
    assert file.read_text() == "precious"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


@pytest.mark.parametrize("kind", ["link", "pipe", "nowhere"])
def test_a_log_that_is_no_file_is_neither_written_nor_read(
    daemon: Daemon, victim: Path, kind: str
) -> None:
    daemon.start()
    planted = Path(daemon.path("logs", "1.log"))
    if kind == "pipe":
        os.mkfifo(planted)
    else:
        planted.symlink_to(victim if kind == "link" else victim.parent / "not-there")
    task = daemon.client().submit("works")
    eventually(lambda: "cannot begin yet" in (task.status().reason or ""), "it says so")
    with pytest.raises(Refused, match="the log of task 1 cannot be read"):
        daemon.client().log(1)
    assert not (victim.parent / "not-there").exists()
    planted.unlink()
    daemon.open_gate("go")
    assert task.result(60) == "done"
    assert "something" in daemon.task_log(1)


def test_a_scratch_directory_that_is_a_link_is_not_used(daemon: Daemon, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    daemon.start()
    planted = Path(daemon.path("state", "scratch", "1"))
    planted.symlink_to(elsewhere)
    task = daemon.client().submit("works")
    eventually(lambda: "cannot begin yet" in (task.status().reason or ""), "it says so")
    planted.unlink()
    daemon.open_gate("go")
    assert task.result(60) == "done"
    assert os.listdir(elsewhere) == []


@pytest.mark.parametrize("name", ["store.db", "lock"])
def test_a_link_in_the_place_of_the_store_or_the_lock_is_refused(
    daemon: Daemon, victim: Path, name: str
) -> None:
    os.mkdir(daemon.path("state"), 0o700) if not os.path.isdir(daemon.path("state")) else None
    os.symlink(victim, daemon.path("state", name))
    assert daemon.path("state", name) in refusal(daemon)


@pytest.mark.parametrize("name", ["confirmed.new", "rejected.new", "handoff.new"])
def test_a_link_in_the_place_of_a_file_that_is_being_made_is_not_followed(
    daemon: Daemon, victim: Path, name: str
) -> None:
    daemon.start()
    os.symlink(victim, daemon.path("state", name))
    with pytest.raises(taskd.Error):
        daemon.reload("broken")
    try:
        daemon.reload("r2")
    except taskd.Error:
        daemon.reload("r2")  # what was in the way is gone
    assert daemon.client().status()["revision"] == "r2"


def test_links_in_the_place_of_files_on_their_way_to_a_worker_are_not_followed(
    daemon: Daemon, victim: Path
) -> None:
    """Large arguments go to a worker in a file: its name is the worker's."""
    daemon.start()
    task = daemon.client().submit("works")
    eventually(lambda: "something" in log_of(daemon, task.id), "it runs")
    daemon.open_gate("go")
    assert task.result(30) == "done"

    def in_the_way() -> bool:
        """It succeeds at once where it meets a worker that was not there yet."""
        planted = [slot.with_suffix(".load") for slot in slots.glob("*.slot")]
        for each in planted:
            each.symlink_to(victim)
        large = daemon.client().submit("works", {"blob": "x" * 500_000})
        words = "cannot be handed to its worker"
        eventually(lambda: words in daemon.log() or large.status().state == "succeeded")
        for each in planted:
            each.unlink(missing_ok=True)
        assert large.result(60) == "done"
        return words in daemon.log()

    slots = Path(daemon.path("state", "slots"))
    eventually(in_the_way, "it is not followed")
