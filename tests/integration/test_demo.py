"""``taskd demo`` as a visitor runs it: what it says, its exit status, and what it leaves behind."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import processes
from support.waiting import eventually

COLUMNS = "TASK NAME ON DEPLOY RAN ON FILES REPEATED RESULT"


def hear_ctrl_c() -> None:
    """A test runner in the background of a shell ignores it, and its children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Visit:
    """One `taskd demo --plain` with a temporary directory of its own.

    ``piped``: the visitor reads from a pipe.
    """

    def __init__(self, root: Path, piped: bool = False) -> None:
        self._marker = ("TASKD_TEST_MARK", uuid.uuid4().hex)
        self._out = root / "out"
        self._temporary = root / "tmp"
        self._temporary.mkdir()
        environ = dict([*os.environ.items(), self._marker, ("TMPDIR", str(self._temporary))])
        with open(self._out, "wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "taskd", "demo", "--plain"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if piped else out,
                stderr=out,
                env=environ,
                preexec_fn=hear_ctrl_c,
            )

    def text(self) -> str:
        return self._out.read_text(encoding="utf-8", errors="replace")

    def until(self, words: str) -> None:
        eventually(lambda: self._says(words), f"it says {words!r}")

    def _says(self, words: str) -> bool:
        assert self.process.poll() is None, self.text()
        return words in self.text()

    def ended(self) -> int:
        return self.process.wait(200)  # more than it gives itself

    def left_behind(self) -> list[str]:
        """Files and processes that should not be there any more."""
        return [*os.listdir(self._temporary), *map(str, self._processes())]

    def clean_up(self) -> None:
        self.process.kill()
        for pid in self._processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def _processes(self) -> list[int]:
        return processes.marked("=".join(self._marker))


@pytest.fixture
def visit(tmp_path: Path, compiled: None) -> Iterator[Callable[..., Visit]]:
    made: list[Visit] = []

    def start(piped: bool = False) -> Visit:
        made.append(Visit(tmp_path, piped))
        return made[-1]

    yield start
    for each in made:
        each.clean_up()


def rows(text: str) -> list[list[str]]:
    """The cells of the table's rows."""
    lines = text.splitlines()
    head = next(n for n, line in enumerate(lines) if " ".join(line.split()) == COLUMNS)
    table = lines[head + 1 : lines.index("", head)]
    return [re.split(r"  +", line.strip()) for line in table]


def test_the_demo_shows_a_deploy_and_finds_nothing_lost_repeated_or_wrong(
    visit: Callable[..., Visit],
) -> None:
    demo = visit()
    assert demo.ended() == 0, demo.text()
    text = demo.text()
    assert "12 tasks and a shell command run on r1" in text
    assert "ln -sfn releases/r2 current && taskctl reload" in text
    assert "6 moved to r2 at their next file, 7 finish on r1, a new one runs on r2" in text
    assert re.search(r"connections +0 dropped by the deploy; \d+ events followed, each once", text)
    assert re.search(r"pause +\d+ ms, says the daemon", text)
    assert "Nothing was lost, repeated or wrong." in text.splitlines()[-1]
    check_table(rows(text))
    assert demo.left_behind() == []


def check_table(found: list[list[str]]) -> None:
    """Every file of every task was done once, on the releases that its kind asks for."""
    assert [row[0] for row in found] == [str(n) for n in range(1, 15)]
    for task, _, on_deploy, ran_on, files, repeated, result in found:
        counts = dict(part.split(": ") for part in ran_on.split(", "))
        done, of = files.split("/")
        assert done == of == str(sum(map(int, counts.values())))
        assert (repeated, result) == ("0", "same")
        is_new = task == "14"
        moves = on_deploy == "checkpoint" and not is_new
        assert list(counts) == (["r1", "r2"] if moves else ["r2" if is_new else "r1"])


@pytest.mark.parametrize(
    ("number", "moment"),
    [
        (signal.SIGINT, "a daemon (pid"),
        (signal.SIGTERM, "running (attempt 1, r1)"),
        (signal.SIGHUP, "running: 13 on r1"),
    ],
)
def test_an_interrupted_demo_leaves_nothing_behind(
    visit: Callable[..., Visit], number: signal.Signals, moment: str
) -> None:
    demo = visit()
    demo.until(moment)
    demo.process.send_signal(number)
    assert demo.ended() == 128 + number
    assert demo.left_behind() == []


def test_a_demo_whose_daemon_dies_says_so_and_leaves_nothing_behind(
    visit: Callable[..., Visit],
) -> None:
    demo = visit()
    demo.until("running (attempt 1, r1)")
    found = re.search(r"a daemon \(pid (\d+)\)", demo.text())
    assert found
    os.kill(int(found[1]), signal.SIGKILL)
    assert demo.ended() == 1
    text = demo.text()
    assert "taskd demo: the daemon ended by itself, with status -9" in text
    assert re.search(r"the daemon's log ends so:\n(.*\n)*.*running task=\d+ ", text)
    assert demo.left_behind() == []


def test_a_demo_whose_reader_goes_away_leaves_nothing_behind(visit: Callable[..., Visit]) -> None:
    demo = visit(piped=True)
    assert demo.process.stdout is not None
    while b"running (attempt 1, r1)" not in (line := demo.process.stdout.readline()):
        assert line, demo.text()
    demo.process.stdout.close()
    assert demo.ended() == 141
    assert demo.text() == ""
    assert demo.left_behind() == []
