"""Releases with a Python and a taskd of their own: one reload upgrades app and daemon."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.daemon import Daemon
from support.ownpython import add_python
from support.raw import Raw
from world import APP, Asking

import taskd
from taskd.upgrade import steps

OURS = Path(taskd.__file__).parent
THEIRS = "77.0"
"""The version that the other taskd says."""


def other_taskd(folder: Path, **changes: tuple[str, str]) -> Path:
    """A library with a copy of taskd that says another version, and differs as told."""
    copy = folder / "taskd"
    shutil.copytree(OURS, copy, ignore=shutil.ignore_patterns("__pycache__"))
    replace(copy / "__init__.py", f'"{taskd.__version__}"', f'"{THEIRS}"')
    for name, (old, new) in changes.items():
        replace(copy / "takeover" / f"{name}.py", old, new)
    return folder


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert text.count(old) == 1
    file.write_text(text.replace(old, new))


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    made = new_daemon(app={"python": ".venv/bin/python"}, queues={"loops": {"concurrency": 4}})
    add_python(made.release("r1", APP), OURS.parent)
    made.point("r1")
    return made.start()


def serving(daemon: Daemon) -> tuple[str, str, int]:
    with daemon.raw() as raw:
        status = raw.ask("status")
    return status["revision"], status["taskd"], status["pid"]


def begun(daemon: Daemon, raw: Raw) -> list[int]:
    tasks = [raw.submit(name, end="end") for name in ("stays", "moves")]
    for task in tasks:
        daemon.reached(task, "0")
    return tasks


def ended(daemon: Daemon, tasks: list[int]) -> None:
    """Each item of each was done once."""
    daemon.open_gate("end")
    for task in tasks:
        last = daemon.client().handle(task).result(30)
        assert daemon.items(task) == [str(n) for n in range(last + 1)]


def test_one_reload_upgrades_app_and_daemon_and_a_rollback_takes_both_back(
    daemon: Daemon, tmp_path: Path
) -> None:
    add_python(daemon.release("r2", APP), other_taskd(tmp_path))
    with daemon.raw() as kept:
        tasks = begun(daemon, kept)
        daemon.reload("r2")
        assert serving(daemon) == ("r2", THEIRS, daemon.pid)
        kept.ask("rollback")
        assert serving(daemon) == ("r1", taskd.__version__, daemon.pid)
        daemon.reload("r2")
        assert kept.ask("status")["taskd"] == THEIRS, "on the connection from before them all"
    ended(daemon, tasks)
    daemon.restart()
    assert serving(daemon) == ("r2", THEIRS, daemon.pid)


def with_first_line(daemon: Daemon, folder: Path, line: str) -> str:
    """A release "r2" whose own taskd begins a new image with that line; its path."""
    future = "from __future__ import annotations\n"
    library = other_taskd(folder, first=(future, f"{future}\n{line}\n"))
    path = daemon.release("r2", APP)
    add_python(path, library)
    return path


@pytest.mark.parametrize(
    "line",
    ["this does not compile", "import os; os._exit(3)", "import ctypes; ctypes.string_at(0)"],
    ids=["does not compile", "exits", "faults"],
)
def test_a_taskd_whose_first_line_fails_is_refused_by_its_trial(
    daemon: Daemon, tmp_path: Path, line: str
) -> None:
    """There is no way back from it after the exec: the trial has to find it."""
    path = with_first_line(daemon, tmp_path, line)
    before = serving(daemon)
    with daemon.raw() as kept:
        tasks = begun(daemon, kept)
        with Asking(daemon, path) as caller:
            verdict = caller.verdict()
            assert verdict is not None and verdict.what == "refused"
        assert "r2: its trial failed" in verdict.why
        assert serving(daemon) == before == ("r1", taskd.__version__, daemon.pid)
        assert "its trial failed" in kept.ask("status")["note"], "on the same connection"
    ended(daemon, tasks)


@pytest.mark.parametrize(
    "dies",
    ["os._exit(3)", "__import__('ctypes').string_at(0)"],
    ids=["exits", "faults"],
)
def test_a_taskd_that_dies_after_the_exec_is_a_crash_and_the_next_start_is_the_old_one(
    daemon: Daemon, tmp_path: Path, dies: str
) -> None:
    """Its first line is too early for a way back; in its trial all went well."""
    line = f"import os\nif {steps.IS_TRIAL!r} not in os.environ: {dies}"
    path = with_first_line(daemon, tmp_path, line)
    with daemon.raw() as raw:
        tasks = begun(daemon, raw)
    daemon.point("r2")
    with Asking(daemon, path) as caller:
        verdict = caller.verdict()
        assert verdict is not None and verdict.what == "crashed"
    assert daemon.process is not None
    daemon.process.wait(30)
    daemon.start()
    revision, version, _ = serving(daemon)
    assert (revision, version) == ("r1", taskd.__version__)
    with daemon.raw() as raw:
        assert raw.ask("status")["note"].startswith("the deploy of r2 ended in a crash")
    ended(daemon, tasks)
