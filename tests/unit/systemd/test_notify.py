"""What systemd is told, over a real datagram socket; and that it never hurts not to be heard."""

from __future__ import annotations

import os
import resource
import socket
import sys
from pathlib import Path

import pytest
from forked import in_child

from taskd.systemd import notify


def test_the_lines_arrive_as_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "notify.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        notify.tell("READY=1", "STATUS=r42; 3 running")
        assert manager.recv(4096) == b"READY=1\nSTATUS=r42; 3 running"


def test_what_a_status_quotes_is_one_line_of_utf_8(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "notify.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        assert notify.tell("STATUS=refused: Zürich…\nMAINPID=1\n\ud800", "READY=1")
        assert manager.recv(4096).decode() == "STATUS=refused: Zürich… MAINPID=1 ?\nREADY=1"


def test_a_service_manager_that_does_not_read_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "notify.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        count = 0
        while notify.tell("WATCHDOG=1"):
            count += 1
        assert count > 0 and manager.recv(4096) == b"WATCHDOG=1"
        assert notify.tell("WATCHDOG=1")


@pytest.mark.parametrize(
    ("usec", "pid", "seconds"),
    [("3000000", None, 3.0), ("3000000", "other", None), ("", None, None), ("0", None, None),
     ("soon", None, None)],
)  # fmt: skip
def test_the_watchdogs_time_is_for_the_process_that_is_meant(
    monkeypatch: pytest.MonkeyPatch, usec: str, pid: str | None, seconds: float | None
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/does/not/exist")
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid() if pid is None else os.getppid()))
    assert notify.watchdog() == seconds
    monkeypatch.delenv("NOTIFY_SOCKET")
    assert notify.watchdog() is None


def test_without_a_service_manager_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify.tell("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", "/does/not/exist")
    notify.tell("READY=1")


def test_a_process_without_a_free_descriptor_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the socket nor the module that speaks the protocol can be opened then."""
    monkeypatch.setenv("NOTIFY_SOCKET", "/does/not/exist")

    def under_test() -> str:
        sys.modules.pop("sdnotify", None)
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            os.open(os.devnull, os.O_RDONLY)
        except OSError:
            notify.tell("WATCHDOG=1")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return "it goes on"

    assert in_child(under_test) == "it goes on"
