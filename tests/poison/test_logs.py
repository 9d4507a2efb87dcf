"""A task that writes without end: its log keeps head and tail, and says what is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import partial

import pytest
from support.beside import Beside
from support.daemon import Daemon
from support.waiting import eventually

POISON = """
import subprocess

LINE = b"x" * 1023 + b"\\n"

@task
def floods(how: str, kilobytes: int) -> str:
    print("the first line", flush=True)
    if how == "itself":
        for n in range(kilobytes // 64):
            os.write(1, LINE * 64)
    elif how == "a program":
        script = f"head -c {kilobytes * 1024} /dev/zero | tr '\\\\0' x"
        subprocess.run(["sh", "-c", script], check=True)
    elif how == "stderr":
        for n in range(kilobytes // 64):
            os.write(2, LINE * 64)
    print("the last line", flush=True)
    mark("written")
    gate("written")
    return "done"

@task
def floods_for_ever() -> None:
    print("the first line", flush=True)
    mark("begun")
    while True:
        os.write(1, LINE * 64)

@task
def becomes_a_flood() -> None:
    print("the first line", flush=True)
    mark("begun")
    os.execvp("yes", ["yes", "x" * 200])

@task
def holds_the_lock_while_a_program_floods() -> None:
    print("the first line", flush=True)
    subprocess.Popen(["yes", "x" * 200])
    mark("begun")
    ctypes.PyDLL(None).sleep(3600)

@task
def dies_of_its_flood() -> None:
    os.write(1, b"the first line\\n" + b"x" * (4 << 20) + b"\\nthe last line\\n")
    os.kill(os.getpid(), signal.SIGKILL)

@task
def writes_after_its_log_is_gone() -> str:
    os.unlink(os.readlink("/proc/self/fd/1"))
    for n in range(100):
        os.write(1, LINE * 64)
    return "done"
"""

LIMIT = 256 * 1024


def room(daemon: Daemon, task: int) -> int:
    return os.stat(daemon.path("logs", f"{task}.log")).st_blocks * 512


def grows_to(path: str, size: int) -> bool:
    return os.path.getsize(path) > size


def logs(daemon: Daemon, *arguments: object) -> subprocess.CompletedProcess[bytes]:
    main = "import sys; from taskd.cli.taskctl import main; sys.exit(main())"
    command = [sys.executable, "-c", main, "logs", "--socket", daemon.control]
    return subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, timeout=60, check=True
    )


@pytest.mark.parametrize("how", ["itself", "a program", "stderr"])
def test_a_log_that_grows_without_end_is_kept_within_its_limit(
    daemon: Daemon, beside: Beside, how: str
) -> None:
    task = daemon.client().submit("floods", {"how": how, "kilobytes": 64 * 1024})
    daemon.reached(task.id, "written")
    eventually(lambda: room(daemon, task.id) <= LIMIT, "it is cut while the task runs")
    daemon.open_gate("written")
    assert task.result(30) == "done"
    eventually(lambda: room(daemon, task.id) <= LIMIT, "and once more at its end")
    text = logs(daemon, task.id).stdout
    assert text.startswith(b"the first line\n")
    assert text.endswith(b"the last line\n")
    assert text.count(b"bytes were cut out of the middle of this log here") == 1
    assert b"\0" not in text
    assert LIMIT // 2 <= len(text) <= LIMIT


def test_a_task_that_floods_its_log_for_ever_is_bounded_and_can_be_cancelled(
    daemon: Daemon, beside: Beside
) -> None:
    task = daemon.client().submit("floods_for_ever")
    path = daemon.path("logs", f"{task.id}.log")
    daemon.reached(task.id, "begun")
    eventually(partial(grows_to, path, 2 << 30), "it has written two gigabytes", within=120)
    eventually(lambda: room(daemon, task.id) < 1 << 30, "it is cut all the while")
    task.cancel()
    assert task.wait(30).state == "cancelled"


def test_a_worker_keeps_its_log_short_while_the_master_is_hung(
    daemon: Daemon, beside: Beside
) -> None:
    task = daemon.client().submit("floods_for_ever")
    daemon.reached(task.id, "begun")
    daemon.kill(signal.SIGSTOP)
    try:
        path = daemon.path("logs", f"{task.id}.log")
        goal = os.path.getsize(path) + (1 << 30)
        eventually(partial(grows_to, path, goal), "it has written another gigabyte", within=120)
        eventually(lambda: room(daemon, task.id) < 1 << 28, "it is cut")
    finally:
        daemon.kill(signal.SIGCONT)
    task.cancel()
    assert task.wait(30).state == "cancelled"


def test_who_follows_a_log_is_told_what_was_cut_before_it_was_read(
    daemon: Daemon, beside: Beside
) -> None:
    task = daemon.client().submit("floods", {"how": "itself", "kilobytes": 64 * 1024})
    daemon.reached(task.id, "written")
    eventually(lambda: room(daemon, task.id) <= LIMIT, "it is cut")
    daemon.open_gate("written")
    ran = logs(daemon, "-f", task.id)
    assert b"bytes were cut out before they were read" in ran.stderr
    assert ran.stdout.endswith(b"the last line\n")


def test_a_client_that_knows_nothing_of_cut_logs_reads_every_byte_in_its_place(
    daemon: Daemon, beside: Beside
) -> None:
    task = daemon.client().submit("floods", {"how": "itself", "kilobytes": 2048})
    daemon.reached(task.id, "written")
    daemon.open_gate("written")
    assert task.result(30) == "done"
    eventually(lambda: room(daemon, task.id) <= LIMIT, "no cut comes any more")
    text = b""
    with daemon.raw() as raw:
        while (part := raw.ask("log", task=task.id, offset=len(text)))["data"]:
            text += part["data"]
            assert part["offset"] == len(text)
    with open(daemon.path("logs", f"{task.id}.log"), "rb") as file:
        assert file.read() == text


def test_a_task_that_removes_its_log_hurts_nobody(daemon: Daemon, beside: Beside) -> None:
    task = daemon.client().submit("writes_after_its_log_is_gone")
    assert task.result(30) == "done"
    assert logs(daemon, task.id).stdout == b""


def test_the_next_attempt_goes_on_with_the_log_of_the_one_before(
    daemon: Daemon, beside: Beside
) -> None:
    client = daemon.client()
    task = client.submit("floods", {"how": "itself", "kilobytes": 1024})
    daemon.reached(task.id, "written", 1)
    task.cancel()
    assert task.wait(30).state == "cancelled"
    task.retry()
    daemon.reached(task.id, "written", 2)
    daemon.open_gate("written")
    assert task.result(30) == "done"
    eventually(lambda: room(daemon, task.id) <= LIMIT, "it is cut")
    text = logs(daemon, task.id).stdout
    assert text.count(b"bytes were cut out") == 1
    assert text.startswith(b"the first line\n")


# ── where the worker cannot see to it ────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["becomes_a_flood", "holds_the_lock_while_a_program_floods"])
def test_a_flood_that_its_worker_cannot_see_is_bounded_all_the_same(
    daemon: Daemon, beside: Beside, name: str
) -> None:
    task = daemon.client().submit(name)
    daemon.reached(task.id, "begun")
    path = daemon.path("logs", f"{task.id}.log")
    for _ in range(2):
        goal = os.path.getsize(path) + (1 << 30)
        eventually(partial(grows_to, path, goal), "it goes on and on", within=120)
        eventually(lambda: room(daemon, task.id) < os.path.getsize(path) // 2, "it is cut")
    task.cancel()
    assert task.wait(30).state == "cancelled"
    eventually(lambda: room(daemon, task.id) <= LIMIT, "and once more when it is over")
    assert logs(daemon, task.id).stdout.startswith(b"the first line\n")


def test_a_log_of_a_task_that_died_of_its_flood_is_cut(daemon: Daemon, beside: Beside) -> None:
    task = daemon.client().submit("dies_of_its_flood")
    assert task.wait(30).state == "held"
    eventually(lambda: room(daemon, task.id) <= LIMIT, "it is cut")
    text = logs(daemon, task.id).stdout
    assert text.startswith(b"the first line\n")
    assert text.endswith(b"\nthe last line\n")
