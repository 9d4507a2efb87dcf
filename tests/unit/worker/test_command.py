"""The built-in task that runs programs, with real ones."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import taskd.worker.command  # noqa: F401  (registers the built-in task)
from taskd import tasks
from taskd.model.task import COMMAND
from taskd.protocol import data
from taskd.protocol.saved import Outcome
from taskd.worker.attempt import Ending, run_attempt
from taskd.worker.memory_recorder import MemoryRecorder


@pytest.fixture
def recorder(tmp_path: Path) -> MemoryRecorder:
    return MemoryRecorder(scratch=str(tmp_path / "scratch"), attempt=2)


def run(recorder: MemoryRecorder, *argv: str, **args: Any) -> Ending:
    command = tasks.registered[COMMAND]
    return run_attempt(command, {"argv": list(argv), **args}, None, recorder)


def sh(recorder: MemoryRecorder, script: str, **args: Any) -> Ending:
    return run(recorder, "/bin/sh", "-c", script, **args)


@pytest.fixture
def ready(tmp_path: Path, recorder: MemoryRecorder) -> Iterator[str]:
    """A named pipe: once the program has opened it, and written its line, it is asked to leave."""
    path = str(tmp_path / "ready")
    os.mkfifo(path)

    def ask_when_ready() -> None:
        with open(path, encoding="ascii") as pipe:
            pipe.readline()
        recorder.ask("leave", "a stop")

    asking = threading.Thread(target=ask_when_ready, daemon=True)
    asking.start()
    yield path
    asking.join(timeout=30)
    assert not asking.is_alive()


def test_a_program_that_ends_well_succeeds_with_0(
    recorder: MemoryRecorder, capfd: pytest.CaptureFixture[str]
) -> None:
    ending = sh(recorder, "echo out; echo err >&2")
    assert ending.outcome is Outcome.SUCCEEDED
    assert ending.result == data.encode(0)
    assert capfd.readouterr() == ("out\n", "err\n")


def test_the_program_finds_who_it_is_in_its_environment(
    recorder: MemoryRecorder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TASKD_SOCKET", "/run/taskd")
    script = (
        'echo "$TASKD_TASK_ID|$TASKD_ATTEMPT|$TASKD_REVISION|$TASKD_SCRATCH|$TASKD_SOCKET|$OWN";'
        'pwd; test -d "$TASKD_SCRATCH"'
    )
    given = {"OWN": "mine", "TASKD_TASK_ID": "forged", "TASKD_SOCKET": "/forged"}
    ending = sh(recorder, script, env=given, cwd=str(tmp_path))
    assert ending.outcome is Outcome.SUCCEEDED
    first, second = capfd.readouterr().out.splitlines()
    assert first == f"1|2|test|{tmp_path}/scratch|/run/taskd|mine"
    assert second == str(tmp_path)


def test_the_program_has_a_group_of_its_own_and_nothing_to_read(
    recorder: MemoryRecorder, capfd: pytest.CaptureFixture[str]
) -> None:
    code = "import os, sys; print(os.getpgrp() == os.getpid(), sys.stdin.read() == '')"
    assert run(recorder, sys.executable, "-c", code).outcome is Outcome.SUCCEEDED
    assert capfd.readouterr().out == "True True\n"


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("exit 3", "exit status 3"),
        ("kill -SEGV $$", "killed by SIGSEGV"),
        ("kill $$", "killed by SIGTERM"),
    ],
)
def test_a_program_that_ends_badly_fails_the_task_in_words(
    recorder: MemoryRecorder, script: str, message: str
) -> None:
    ending = sh(recorder, script)
    assert ending.outcome is Outcome.FAILED
    assert ending.error is not None
    assert (ending.error["type"], ending.error["message"]) == ("CommandFailed", message)


@pytest.mark.parametrize(
    ("argv", "more", "says"),
    [
        (["no-such-program-here"], {}, "program not found: 'no-such-program-here'; searched"),
        (["/dev/null"], {}, "cannot start '/dev/null': "),
        (["true"], {"cwd": "/no/such"}, "there is no directory '/no/such'"),
        (["true", "a\0b"], {}, "cannot start 'true': embedded null byte"),
        ([], {}, "argv must be a list of str"),
        ("true", {}, "argv must be a list of str"),
        (["true"], {"cwd": 5}, "cwd must be a str"),
        (["true"], {"env": {"A": 1}}, "env must be a dict of str to str"),
        (["true"], {"env": ["A"]}, "env must be a dict of str to str"),
    ],
)
def test_a_program_that_cannot_start_fails_the_task_in_words(
    recorder: MemoryRecorder, argv: Any, more: dict[str, Any], says: str
) -> None:
    command = tasks.registered[COMMAND]
    ending = run_attempt(command, {"argv": argv, **more}, None, recorder)
    assert ending.outcome is Outcome.FAILED
    assert ending.error is not None
    assert ending.error["type"] == "CommandFailed"
    assert says in ending.error["message"]


def test_the_program_is_searched_in_the_path_it_is_given(
    recorder: MemoryRecorder, tmp_path: Path
) -> None:
    program = tmp_path / "only-here"
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    assert run(recorder, "only-here").outcome is Outcome.FAILED
    assert run(recorder, "only-here", env={"PATH": str(tmp_path)}).outcome is Outcome.SUCCEEDED


def test_exit_status_75_unasked_asks_to_be_continued_later(recorder: MemoryRecorder) -> None:
    ending = sh(recorder, "exit 75")
    assert ending.outcome is Outcome.YIELDED
    assert "75" in str(ending.reason)


@pytest.mark.parametrize(
    ("on_term", "outcome"),
    [
        ("exit 75", Outcome.LEFT),
        ("exit 143", Outcome.LEFT),
        ("trap - TERM; kill $$", Outcome.LEFT),
        ("exit 0", Outcome.SUCCEEDED),
        ("exit 4", Outcome.FAILED),
    ],
)
def test_asked_to_leave_the_program_gets_sigterm_and_says_what_follows(
    recorder: MemoryRecorder, ready: str, on_term: str, outcome: Outcome
) -> None:
    script = f"trap '{on_term}' TERM; echo ready > {ready}; while :; do sleep 0.05; done"
    ending = sh(recorder, script)
    assert ending.outcome is outcome
    if outcome is Outcome.LEFT:
        assert ending.reason == "a stop"


def test_a_program_that_knows_nothing_of_it_dies_of_sigterm_and_is_left(
    recorder: MemoryRecorder, ready: str
) -> None:
    ending = sh(recorder, f"echo ready > {ready}; sleep 1000 & wait")
    assert ending.outcome is Outcome.LEFT


def test_the_whole_group_is_asked(recorder: MemoryRecorder, ready: str, tmp_path: Path) -> None:
    told = tmp_path / "told"
    child = (
        f"trap 'echo told > {told}; exit' TERM; echo ready > {ready}; while :; do sleep 0.05; done"
    )
    ending = sh(recorder, f"trap 'wait; exit 75' TERM; (sh -c \"{child}\") & wait; wait; exit 1")
    assert ending.outcome is Outcome.LEFT
    assert told.read_text() == "told\n"


def test_a_wish_to_cancel_ends_as_cancelled(recorder: MemoryRecorder, ready: str) -> None:
    script = f"trap 'exit 75' TERM; echo ready > {ready}; while :; do sleep 0.05; done"
    asked = recorder.ask
    recorder.ask = lambda kind="", why="": asked("cancel", "by the user")  # type: ignore[method-assign]
    ending = sh(recorder, script)
    assert (ending.outcome, ending.reason) == (Outcome.CANCELLED, "by the user")


def test_an_exception_in_the_waiting_leaves_no_program_behind(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    os.mkfifo(pid_file)
    pids: list[int] = []

    class Interrupting(MemoryRecorder):
        def wait_for(self, condition: Any, seconds: float | None = None) -> bool:
            pids.append(int(pid_file.read_text()))
            raise KeyboardInterrupt

    ending = sh(Interrupting(scratch=str(tmp_path)), f"echo $$ > {pid_file}; exec sleep 1000")
    assert ending.outcome is Outcome.FAILED
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


def test_no_thread_and_no_child_is_left_behind(recorder: MemoryRecorder) -> None:
    before = set(threading.enumerate())
    sh(recorder, "exit 0")
    assert set(threading.enumerate()) <= before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_the_program_starts_with_ordinary_signal_handling(
    recorder: MemoryRecorder, capfd: pytest.CaptureFixture[str]
) -> None:
    code = (
        "import signal; print(signal.pthread_sigmask(signal.SIG_BLOCK, []) == set(), "
        "signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)"
    )
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()
    assert run(recorder, sys.executable, "-c", code).outcome is Outcome.SUCCEEDED
    assert capfd.readouterr().out == "True True\n"


NICE = """
import os, sys
import taskd.worker.command
from taskd import tasks
from taskd.worker.attempt import run_attempt
from taskd.worker.memory_recorder import MemoryRecorder

os.nice(5)
read = "import os, sys; sys.stdin.read(); print(os.getpriority(os.PRIO_PROCESS, 0))"
args = {"argv": [sys.executable, "-c", read], "nice": int(sys.argv[1])}
ending = run_attempt(tasks.registered["command"], args, None, MemoryRecorder(scratch=sys.argv[2]))
sys.exit(ending.outcome.value != "succeeded")
"""


@pytest.mark.parametrize(("asked", "got"), [(0, 5), (12, 12)])
def test_a_program_is_never_nicer_to_itself_than_the_service_is(
    tmp_path: Path, asked: int, got: int
) -> None:
    """Only root could have it so: for others the program would not run at all."""
    words = [sys.executable, "-c", NICE, str(asked), str(tmp_path / "scratch")]
    ran = subprocess.run(words, capture_output=True, text=True, check=True)
    assert ran.stdout == f"{got}\n"
