"""What goes into tasks and comes out: large data, saved state, output, and whole programs."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

import pytest
from support.daemon import Daemon
from support.waiting import eventually

import taskd

APP = """
import os, signal, subprocess, sys
from taskd import task
from side import attempt, gate, mark, until_asked

@task
def plain(n: int = 0) -> int:
    mark("plain")
    return os.getpid()

@task
def echo(value: bytes) -> bytes:
    return value

@task(on_deploy="checkpoint")
def saves_much(ctx, steps: int, size: int, how: str) -> list:
    def make(n):
        mark(f"step-{n}")
        return bytes([n]) * size
    kept = [ctx.step(f"step-{n}", make, n) for n in range(steps)]
    ctx.state["large"] = b"s" * size
    ctx.checkpoint()
    mark("saved")
    if attempt() == 1:
        until_asked(ctx) if how == "deploy" else gate("never")
        ctx.checkpoint()
    return [len(part) for part in kept] + [kept[-1][:2], len(ctx.state["large"])]

@task
def talks(ctx) -> None:
    print("to stdout")
    print("to stderr", file=sys.stderr)
    os.write(1, b"raw\\n")
    subprocess.run(["sh", "-c", "echo from a program; echo and its errors >&2"], check=True)
    ctx.log.info("to the %s", "log")
    print("no newline at the end", end="")

@task
def hands_over(ctx) -> list:
    path = ctx.scratch / "kept"
    if attempt() == 1:
        path.write_text("from attempt 1")
        os.kill(os.getpid(), signal.SIGKILL)
    return [path.read_text(), os.environ["TASKD_SCRATCH"] == str(ctx.scratch), ctx.revision]

@task
def returns_what_is_not_plain() -> object:
    return object()
"""


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    made = new_daemon(app={"tasks_per_worker": 3}, queues={"default": {"concurrency": 1}})
    return made.with_releases(APP, "r1", "r2").start()


def all_is_well(daemon: Daemon) -> None:
    """Other tasks run as ever, on workers that live."""
    client = daemon.client()
    for _ in range(4):
        assert client.submit("plain").result(30) > 0


# ── large data ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("size", [60_000, 70_000, 1_000_000])
def test_large_arguments_and_results_come_through_whole(daemon: Daemon, size: int) -> None:
    value = os.urandom(size)
    assert daemon.client().submit("echo", {"value": value}).result(30) == value


def test_arguments_above_the_limit_are_refused_in_the_caller(daemon: Daemon) -> None:
    with pytest.raises(taskd.NotPlainData, match=r"ctx\.scratch|limit"):
        daemon.client().submit("echo", {"value": b"x" * 1_100_000})


@pytest.mark.parametrize("how", ["deploy", "kill", "everything"])
def test_large_saved_state_is_carried_to_the_next_attempt(daemon: Daemon, how: str) -> None:
    steps, size = 14, 1_000_000  # 15 of the 16 MiB that a task may save
    task = daemon.client().submit("saves_much", {"steps": steps, "size": size, "how": how})
    pid = daemon.reached(task.id, "saved").pid
    if how == "deploy":
        daemon.reload("r2")
    elif how == "kill":
        os.kill(pid, signal.SIGKILL)
    else:
        daemon.kill_everything()
        daemon.start()
    last = bytes([steps - 1]) * 2
    assert task.result(60) == [*([size] * steps), last, size]
    wanted = [f"step-{n}" for n in range(steps)]
    assert [i for i in daemon.items(task.id) if i.startswith("step")] == wanted
    assert os.listdir(daemon.path("state", "slots")) != []
    assert not [n for n in os.listdir(daemon.path("state", "slots")) if n.endswith(".load")]


def test_saving_more_than_the_limit_fails_the_task_and_says_what_to_do(daemon: Daemon) -> None:
    args = {"steps": 18, "size": 1_000_000, "how": "kill"}
    with pytest.raises(taskd.TaskFailed, match=r"16.*MiB|scratch"):
        daemon.client().submit("saves_much", args).result(30)
    all_is_well(daemon)


def test_a_result_that_is_not_plain_data_fails_the_task(daemon: Daemon) -> None:
    with pytest.raises(taskd.TaskFailed, match="NotPlainData"):
        daemon.client().submit("returns_what_is_not_plain").result(30)
    all_is_well(daemon)


def test_the_scratch_directory_is_kept_over_attempts(daemon: Daemon) -> None:
    assert daemon.client().submit("hands_over").result(30) == ["from attempt 1", True, "r1"]


# ── output ───────────────────────────────────────────────────────────────────────────────────


def test_stdout_and_stderr_of_a_task_and_its_programs_are_in_its_log(daemon: Daemon) -> None:
    client = daemon.client()
    task = client.submit("talks")
    task.result(30)
    told = client.log(task.id)
    text = told["data"].decode()
    assert told["ended"]
    for line in ("to stdout", "to stderr", "raw", "from a program", "and its errors", "to the log",
                 "no newline at the end"):  # fmt: skip
        assert text.count(line) == 1, text
    assert "to stdout" not in daemon.log()


# ── commands ─────────────────────────────────────────────────────────────────────────────────


def sh(script: str) -> dict[str, list[str]]:
    return {"argv": ["sh", "-c", script]}


def test_a_command_runs_with_its_output_in_the_log_and_fails_by_its_status(
    daemon: Daemon,
) -> None:
    client = daemon.client()
    good = client.submit("command", sh("echo task $TASKD_TASK_ID attempt $TASKD_ATTEMPT"))
    assert good.result(30) == 0
    assert client.log(good.id)["data"].decode() == f"task {good.id} attempt 1\n"
    with pytest.raises(taskd.TaskFailed, match="exit status 3"):
        client.submit("command", sh("exit 3")).result(30)
    script = "rm $0; exec 2>/dev/null; exec no-such-program"
    with pytest.raises(taskd.TaskFailed, match="exit status 127"):
        client.submit("command", sh(script)).result(30)


def test_a_command_runs_on_through_a_deploy_and_is_ended_by_a_cancel(daemon: Daemon) -> None:
    script = "echo begun > $TASKD_SCRATCH/begun; exec sleep 3600"
    task = daemon.client().submit("command", sh(script))
    begun = daemon.path("state", "scratch", str(task.id), "begun")
    eventually(lambda: os.path.exists(begun), "it has begun")
    daemon.reload("r2")
    assert task.status().state == "running"
    assert task.status().attempt == 1
    task.cancel()
    assert task.wait(30).state == "cancelled"


def test_a_command_that_asks_to_be_continued_later_is(daemon: Daemon) -> None:
    argv = [
        sys.executable,
        "-c",
        "import os; exit(75 if os.environ['TASKD_ATTEMPT'] == '1' else 0)",
    ]
    task = daemon.client().submit("command", {"argv": argv})
    assert task.result(30) == 0
    assert task.status().attempt == 2
