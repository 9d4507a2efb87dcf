"""A spawned program begins with a clean slate: signals, session, descriptors, environment."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

import pytest
from descriptors import descriptors

from taskd.posix import spawn

LOOK = """
import json, os, signal, sys
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
json.dump({
    "stdin": sys.stdin.buffer.read().decode(),
    "session": os.getsid(0) == os.getpid(),
    "blocked": status["SigBlk"].strip(), "ignored": status["SigIgn"].strip(),
    "fds": [os.readlink(f"/proc/self/fd/{fd}") for fd in map(int, os.listdir("/proc/self/fd"))
            if fd > 2 and os.path.exists(f"/proc/self/fd/{fd}")],
    "environment": dict(os.environ),
}, open(sys.argv[1], "w"))
"""

PYTHONS_OWN = {signal.SIGPIPE, signal.SIGXFSZ}
"""Ignored by every Python from its start, whatever it inherits."""


def signals(mask: str) -> set[int]:
    """Those in one of /proc/PID/status's masks, but for the C library's own."""
    return {s for s in signal.valid_signals() if int(mask, 16) >> s - 1 & 1}


def look(path: str, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What a spawned Python finds."""
    arguments = [sys.executable, "-I", "-S", "-c", LOOK, path]
    pid = spawn.spawn(arguments, stdin, spawn.environment() if env is None else env)
    _, status = os.waitpid(pid, 0)
    assert status == 0
    with open(path, encoding="utf-8") as file:
        found: dict[str, Any] = json.load(file)
    return found


@pytest.fixture
def path(tmp_path: Any) -> str:
    return str(tmp_path / "seen")


def test_stdin_is_what_was_given(path: str) -> None:
    assert look(path, b"configuration")["stdin"] == "configuration"


def test_stdin_may_be_larger_than_a_pipe(path: str) -> None:
    assert len(look(path, b"x" * 1_000_000)["stdin"]) == 1_000_000


def test_it_leads_a_session_of_its_own(path: str) -> None:
    assert look(path)["session"]


def test_no_signal_is_blocked_or_ignored_although_we_do_both(path: str) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGHUP})
    handler = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        seen = look(path)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        signal.signal(signal.SIGUSR1, handler)
    assert signals(seen["blocked"]) == set()
    assert signals(seen["ignored"]) == PYTHONS_OWN


def test_it_has_no_descriptor_of_ours(path: str) -> None:
    held = os.open(path + ".held", os.O_RDWR | os.O_CREAT)
    memory = spawn.memory_file("ours", b"")
    try:
        seen = look(path)["fds"]
    finally:
        os.close(held)
        os.close(memory)
    assert not [name for name in seen if ".held" in name or "memfd" in name]


def test_spawning_leaves_no_descriptor_open(path: str) -> None:
    before = descriptors()
    look(path)
    with pytest.raises(FileNotFoundError):
        spawn.spawn(["/does/not/exist"], b"", {})
    assert descriptors() == before


def test_what_systemd_means_for_the_master_is_not_inherited(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_USEC"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("HOME", "/somewhere")
    seen = look(path, env=spawn.environment({"EXTRA": "yes"}))["environment"]
    assert not [name for name in seen if name.startswith(("NOTIFY", "LISTEN", "WATCHDOG"))]
    assert (seen["HOME"], seen["EXTRA"]) == ("/somewhere", "yes")


def test_a_memory_file_is_read_from_its_beginning_and_is_not_inherited() -> None:
    fd = spawn.memory_file("name", b"content")
    try:
        assert os.read(fd, 99) == b"content"
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)
