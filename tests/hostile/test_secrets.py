"""A secret argument, from the command line to a failing task: nothing taskd writes shows it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from support.daemon import Daemon
from support.waiting import eventually

import taskd
from taskd import Secret

VALUE = "correct-horse-battery"

APP = """
import os
from taskd import Context, Secret, task
from side import gate

@task(on_deploy="checkpoint")
def logs_in(ctx: Context, token: Secret, how: str = "", padding: str = "") -> object:
    print("token:", token, [token], repr(token))
    ctx.log.info("with %s and %r", token, token)
    ctx.state["token"] = token
    ctx.checkpoint()
    if how == "raises":
        raise PermissionError(f"{token.reveal()} is wrong")
    if how == "waits":
        while not os.path.exists(os.path.join(os.environ["TASKD_TEST_GATES"], "go")):
            ctx.sleep(0.01)
    return {"same": token.reveal() == "correct-horse-battery", "token": token}

@task
def needs_two(a: int, token: Secret) -> None: ...
"""


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    made = new_daemon()
    made.release("gone", "from taskd import task\n@task\ndef other(): ...\n")
    return made.with_releases(APP, "r1", "r2").start()


@pytest.fixture
def said(daemon: Daemon, tmp_path: Path) -> Callable[..., str]:
    """Run taskctl; what it printed on both, whatever its status."""
    file = tmp_path / "token"
    file.write_text(VALUE + "\n")

    def run(*words: str, given: str = "") -> str:
        words = tuple(word.replace("FILE", str(file)) for word in words)
        command = [sys.executable, "-c", "from taskd.cli.taskctl import main; exit(main())", *words]
        ran = subprocess.run(
            command,
            input=given,
            capture_output=True,
            text=True,
            env=os.environ | {"TASKD_SOCKET": daemon.control},
            timeout=60,
        )
        return ran.stdout + ran.stderr

    return run


@pytest.mark.parametrize("how", ["token=@FILE", "token=-", f"token={VALUE}"])
def test_a_task_gets_it_as_a_secret_however_it_was_given(
    daemon: Daemon, said: Callable[..., str], how: str
) -> None:
    told = said("submit", "--wait", "--json", "--secret", how, "logs_in", given=f"{VALUE}\r\n")
    assert json.loads(told)["result"] == {"same": True, "token": "••••"}
    assert daemon.client().task(1).result == {"same": True, "token": Secret(VALUE)}
    assert "token: Secret('••••')" in daemon.task_log(1)


def shown_of(pid: int) -> list[bytes]:
    """What the machine's users may see of a process; nothing of one that has just ended."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return [Path(f"/proc/{pid}/{what}").read_bytes() for what in ("cmdline", "environ", "comm")]
    return []


def test_nothing_shows_it(daemon: Daemon, said: Callable[..., str]) -> None:
    padding = "x" * 100_000  # so that the arguments go to the worker in a file
    shown = [
        said("submit", "--secret", "token=@FILE", "logs_in", "how=waits", f"padding={padding}"),
        said("submit", "--secret", "token=@FILE", "logs_in", "how=raises"),
        said("submit", "--secret", "token=@FILE", "logs_in", "surplus=1"),
        said("submit", "--secret", "token=@FILE", "needs_two"),
        said("submit", "--secret", "token=@FILE", "logs_in", "token=1"),
        said("submit", "--wait", "--secret", "token=@FILE", "logs_in", "how=raises"),
    ]
    waiting = daemon.client().handle(1)
    eventually(lambda: os.path.exists(daemon.path("logs", "1.log")), "it begins")
    eventually(lambda: "token:" in daemon.task_log(1), "it runs")
    processes = [seen for pid in daemon.processes() for seen in shown_of(pid)]
    for verb in (["status"], ["revisions"], ["list"], ["show", "1", "2"]):
        shown += [said(*verb), said(*verb, "--json")]
    shown += [said("logs", "1"), said("follow", "2"), said("reload", "--plan")]
    daemon.point("gone")
    shown += [said("reload"), said("reload", "--plan", "--json")]
    daemon.reload("r2")
    daemon.open_gate("go")
    assert waiting.result(60) == {"same": True, "token": Secret(VALUE)}
    shown += [said("show", "1", "--json"), said("wait", "1", "2", "--json")]
    shown += [daemon.log(), *(daemon.task_log(n) for n in (1, 2))]
    assert not any(VALUE.encode() in each for each in processes)
    assert not [text for text in shown if VALUE in text]
    error = daemon.client().task(2).error
    assert error is not None
    assert error["message"] == "•••• is wrong"
    assert "••••" in error["traceback"]
    with pytest.raises(taskd.TaskFailed, match="•••• is wrong"):
        daemon.client().handle(2).result(30)


def test_a_program_gets_it_in_its_environment_and_not_on_its_command_line(
    daemon: Daemon, said: Callable[..., str]
) -> None:
    script = f'test "$TOKEN" = {VALUE[:7]}"${{0#sh}}" && cat /proc/$$/cmdline'
    told = said(
        "run", "--wait", "--secret", "TOKEN=@FILE", "--", "sh", "-c", script, "sh" + VALUE[7:]
    )
    assert told.splitlines()[0] == "1"
    assert VALUE.encode() not in daemon.task_log(1).encode().replace(b"\0", b" ")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--secret", VALUE], "must be key=VALUE, key=@FILE or key=-"),
        (["--secret", f"a b={VALUE}"], "must be key=VALUE"),
        (["--secret", f"a={VALUE}", "--secret", f"a={VALUE}"], "'a' is given twice"),
        (["--secret", "a=-", "--secret", "b=-"], "only one can come from the standard input"),
        (["--secret", "a=@/not/there"], "cannot read @/not/there: No such file or directory"),
        (["--secret", "a=@/bin/true"], "no text"),
        (["--secret", "a=@/dev/zero"], "more than 262,144 bytes"),
    ],
)
def test_what_is_wrong_with_one_is_said_without_it(
    daemon: Daemon, said: Callable[..., str], words: list[str], why: str
) -> None:
    told = said("submit", *words, "logs_in")
    assert why in told
    assert VALUE not in told
    assert daemon.client().tasks() == []
