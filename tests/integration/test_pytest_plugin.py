"""pytest's fixtures ``taskd_daemon`` and ``taskd_eager``, in runs of pytest of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from support import processes
from support.waiting import eventually

APP = """
import os, time
from taskd import Context, task

@task
def adds(a: int, b: int = 2) -> int:
    return a + b

@task
def hangs(ctx: Context) -> None:
    open(os.environ["HANGS"], "w").close()
    while True:
        time.sleep(0.05)
"""

TWO_TESTS = """
import os, shop, taskd

def note(daemon):
    with open(os.environ["NOTES"], "a") as file:
        file.write(f"{daemon.pid} {daemon.directory} {os.getpid()}\\n")

def test_one(taskd_daemon):
    note(taskd_daemon)
    assert shop.adds.submit(1).result(60) == 3
    left = taskd_daemon.client.submit("hangs")
    shop.adds.using(delay=3600).submit(1)
    while left.status().state != "running" or not os.path.exists(os.environ["HANGS"]):
        pass

def test_two(taskd_daemon):
    note(taskd_daemon)
    assert [each.state for each in taskd.Client().tasks(name="hangs")] == ["cancelled"]
    assert not taskd.Client().tasks(state="scheduled")
    assert shop.adds.submit(2).result(60) == 4

def test_three():
    assert "TASKD_SOCKET" not in os.environ
"""


class Project:
    """A user's project, and runs of pytest in it."""

    def __init__(self, path: Path, mark: str) -> None:
        self.path = path
        self.mark = f"OF_TEST={mark}"
        self.write("shop.py", APP)
        self.write("pytest.ini", "[pytest]\ntaskd_modules = shop\n")

    def write(self, name: str, text: str) -> None:
        (self.path / name).write_text(text, encoding="utf-8")

    def start(self, *args: str, **env: str) -> subprocess.Popen[str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("TASKD_", "PYTEST_"))}
        name, value = self.mark.split("=")
        found = any(each.name == "taskd" for each in entry_points(group="pytest11"))
        plugin = [] if found else ["-p", "taskd.pytest_plugin"]
        return subprocess.Popen(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *plugin, *args],
            cwd=self.path,
            env={
                **clean,
                "NOTES": str(self.path / "notes"),
                "HANGS": str(self.path / "hangs"),
                name: value,
                **env,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *args: str, **env: str) -> tuple[int, str]:
        process = self.start(*args, **env)
        said, _ = process.communicate(timeout=200)
        return process.returncode, said

    def notes(self) -> list[list[str]]:
        path = self.path / "notes"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def left(self) -> list[int]:
        return processes.marked(self.mark)


@pytest.fixture
def project(tmp_path: Path, compiled: None) -> Iterator[Project]:
    made = Project(tmp_path, tmp_path.name)
    yield made
    for pid in made.left():
        os.kill(pid, signal.SIGKILL)


def test_tests_share_a_daemon_that_ends_with_pytest(project: Project) -> None:
    project.write("test_shop.py", TWO_TESTS)
    status, said = project.run()
    assert (status, "3 passed" in said) == (0, True), said
    (one, two) = project.notes()
    assert one == two
    assert not os.path.exists(one[1])
    assert not project.left()


def test_each_process_of_xdist_has_its_own(project: Project) -> None:
    one = TWO_TESTS.replace("hangs", "adds").split("def test_two")[0]
    short = one[: one.index("    left = ")]
    project.write("test_one.py", short)
    project.write("test_two.py", short)
    status, said = project.run("-n", "2", "--dist", "loadfile")
    assert (status, "2 passed" in said) == (0, True), said
    notes = project.notes()
    assert len({pytest_pid for *_, pytest_pid in notes}) == 2
    assert len({daemon for daemon, *_ in notes}) == 2
    assert not project.left()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_pytest_that_is_killed_leaves_no_process(
    project: Project, number: signal.Signals
) -> None:
    project.write(
        "test_shop.py",
        "import time\nfrom shop import hangs\n\n"
        "def test_it(taskd_daemon):\n    hangs.submit()\n    time.sleep(600)\n",
    )
    process = project.start()
    eventually(lambda: (project.path / "hangs").exists(), "the task hangs")
    process.send_signal(number)
    process.wait()
    eventually(lambda: not project.left(), "daemon, zygote and worker have ended")


def test_nothing_is_imported_until_a_fixture_is_asked_for(project: Project) -> None:
    project.write(
        "test_shop.py",
        """
import sys

def ours():
    return {name for name in sys.modules if name.partition(".")[0] == "taskd"}

def test_before():
    assert ours() == {"taskd", "taskd.pytest_plugin"}
    assert not {"cbor2", "psutil", "asyncio"} & sys.modules.keys()

def test_after(taskd_eager):
    assert "taskd.testing.in_process" in sys.modules
""",
    )
    status, said = project.run()
    assert status == 0, said


def test_what_is_not_configured_is_said(project: Project) -> None:
    project.write("pytest.ini", "[pytest]\n")
    project.write("test_shop.py", "def test_it(taskd_daemon): ...\n")
    status, said = project.run()
    assert status == 1
    assert 'taskd_modules = ["app.tasks"], or taskd_config = "taskd.toml"' in said


def test_an_app_that_does_not_import_shows_why(project: Project) -> None:
    project.write("shop.py", "import nowhere_to_be_found\n")
    project.write("test_shop.py", "def test_it(taskd_daemon): ...\n")
    status, said = project.run()
    assert status == 1
    assert "DaemonFailed: the daemon does not start" in said
    assert "nowhere_to_be_found" in said
    assert not project.left()


def test_a_taskd_toml_says_the_rest_and_a_failed_test_shows_the_log(project: Project) -> None:
    project.write("pytest.ini", "[pytest]\ntaskd_config = taskd.toml\n")
    project.write(
        "taskd.toml",
        '[app]\nrelease = "/srv/none"\npython = "nowhere"\nmodules = ["shop"]\nmax_workers = 3\n'
        '[queues.default]\nconcurrency = 1\n[queues."mails.de"]\nconcurrency = 2\n'
        '[hooks]\nbefore = ["false"]\n[daemon]\nstop_timeout = "10min"\n'
        '[access]\nadmin_groups = ["nobody-has-it"]\n',
    )
    project.write(
        "test_shop.py",
        """
import shop

def test_it(taskd_daemon):
    queues = taskd_daemon.client.status()["queues"]
    assert shop.adds.using(queue="mails.de").submit(1).result(60) == 3
    assert 1 == 2, sorted(queues)
""",
    )
    status, said = project.run()
    assert status == 1
    assert "mails.de" in said
    assert "log of taskd" in said
    assert "ready revision=" in said


def test_a_long_directory_for_temporary_files_is_no_hindrance(project: Project) -> None:
    long = project.path / ("x" * 100)
    long.mkdir()
    project.write("test_shop.py", TWO_TESTS)
    status, said = project.run(TMPDIR=str(long))
    assert status == 0, said
    assert all(directory.startswith("/tmp/") for _, directory, _ in project.notes())


def test_a_daemon_that_dies_fails_that_test_and_the_next(project: Project) -> None:
    project.write(
        "test_shop.py",
        """
import os, signal, time

def test_one(taskd_daemon):
    os.kill(taskd_daemon.pid, signal.SIGKILL)
    while taskd_daemon.is_alive:
        time.sleep(0.01)

def test_two(taskd_daemon): ...
""",
    )
    status, said = project.run()
    assert status == 1
    assert said.count("DaemonFailed: the daemon has ended") >= 2
    eventually(lambda: not project.left(), "what it had started ends without it")


def test_each_fixture_has_its_own_world(project: Project) -> None:
    project.write(
        "test_shop.py",
        """
import shop, taskd

def test_eager(taskd_eager):
    assert shop.adds.submit(1).status().revision == "eager"

def test_real(taskd_daemon):
    assert shop.adds.submit(1).result(60) == 3
    assert shop.adds.submit(1).status().revision != "eager"

def test_eager_again(taskd_eager):
    assert [task.revision for task in taskd.Client().tasks()] == []
    assert shop.adds.submit(1).status().revision == "eager"
""",
    )
    status, said = project.run()
    assert (status, "3 passed" in said) == (0, True), said
