"""taskctl against a small daemon, and what such a daemon may answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from client_daemon import Daemon, task
from support.waiting import eventually

from taskd.cli import taskctl
from taskd.protocol import data

Items = list[dict[str, Any]]
Run = Callable[..., tuple[int, str, str]]

COMMAND = "import sys; from taskd.cli.taskctl import main; sys.exit(main())"

TASK_FIELDS = [
    "id", "name", "queue", "state", "reason", "attempt", "revision", "progress", "result",
    "error", "submitted", "started", "ended", "priority", "key", "owner", "arguments", "pid",
    "memory", "parent", "after", "log", "silent", "timeout",
]  # fmt: skip


def succeeded(number: int, result: Any = None) -> dict[str, Any]:
    return task(
        number, "succeeded", attempt=1, revision="r1", started=1001.0, ended=1003.5, ran=2.5,
        result=data.encode(result, "result", 2**20),
    )  # fmt: skip


def failed(number: int) -> dict[str, Any]:
    error = {"type": "ValueError", "message": "no such file\nreally", "traceback": "in f\n\tx\n"}
    times = {"started": 1001.0, "ended": 1002.0, "ran": 1.0}
    return task(number, "failed", attempt=1, error=error, **times)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon(str(tmp_path / "control.sock"), first=17)
    yield made
    made.stop()


@pytest.fixture
def run(daemon: Daemon, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """taskctl in this process: (exit status, stdout, stderr)."""
    monkeypatch.setenv("TASKD_SOCKET", daemon.path)

    def ran(*words: str) -> tuple[int, str, str]:
        try:
            status = taskctl.main(words)
        except SystemExit as end:  # argparse's way out
            status = int(end.code or 0)
        return status, *capfd.readouterr()

    return ran


def spawn(daemon: Daemon, *words: str, **more: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *words],
        env=os.environ | {"TASKD_SOCKET": daemon.path},
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | more,
    )


def signal_asleep(ran: subprocess.Popen[bytes], number: int) -> None:
    """A signal to a taskctl that has sent its request, once it sleeps.

    Just before its read begins to sleep, Python would note the signal and see to it only when
    the read returns.
    """
    stat = Path(f"/proc/{ran.pid}/stat")
    eventually(lambda: stat.read_text().rpartition(")")[2].split()[0] == "S", "taskctl waits")
    ran.send_signal(number)


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]
