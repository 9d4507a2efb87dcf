"""taskctl against a small daemon on a real socket: output, exit codes, what is asked for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_daemon import (
    COMMAND,
    TASK_FIELDS,
    Daemon,
    Run,
    failed,
    objects,
    signal_asleep,
    spawn,
    succeeded,
    task,
)
from client_daemon import event

import taskd
from taskd.cli import taskctl
from taskd.errors import KeyConflict, Refused
from taskd.protocol import data

# ── submit and run ───────────────────────────────────────────────────────────────────────────


def asked(daemon: Daemon) -> dict[str, Any]:
    found: dict[str, Any] = next(fields for op, fields in daemon.seen if op == "submit")["tasks"][0]
    return found


def test_submit_prints_the_id_and_nothing_else(run: Run) -> None:
    assert run("submit", "index") == (0, "17\n", "")


def test_submit_passes_json_as_that_and_all_else_as_text(run: Run, daemon: Daemon) -> None:
    words = ["a=1", "b=x y", 'c={"k": [1.5, null]}', "d=NaN", "e=", "f=a=b", 'g="1"', "h=true"]
    assert run("submit", "index", *words)[0] == 0
    assert data.decode(asked(daemon)["args"]) == {
        "a": 1,
        "b": "x y",
        "c": {"k": [1.5, None]},
        "d": "NaN",
        "e": "",
        "f": "a=b",
        "g": "1",
        "h": True,
    }


def test_submits_options_stand_before_the_name(run: Run, daemon: Daemon) -> None:
    words = ["--key", "k", "--priority", "-5", "--queue", "big"]
    assert run("submit", *words, "index", "a=1")[0] == 0
    found = asked(daemon)
    assert (found["key"], found["priority"], found["queue"]) == ("k", -5, "big")
    status, out, err = run("submit", "index", "--wait", "a=1")
    assert (status, out) == (2, "")
    assert "options stand before the task's name" in err


@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        (["--at", "2030-01-01T02:00+02:00"], "due", 1893456000.0),
        (["--delay", "2h"], "delay", 7200.0),
        (["--expires", "10min"], "expires", 600.0),
    ],
)
def test_a_task_is_submitted_for_later(
    run: Run, daemon: Daemon, words: list[str], field: str, value: float
) -> None:
    assert run("submit", *words, "index")[0] == 0
    assert {name: asked(daemon).get(name) for name in ("due", "delay", "expires")} == (
        {"due": None, "delay": None, "expires": None} | {field: value}
    )


def test_a_time_that_says_no_zone_is_refused_with_what_to_write(run: Run) -> None:
    status, out, err = run("submit", "--at", "2030-01-01T02:00", "index")
    assert (status, out) == (2, "")
    assert "does not say in which zone: add an offset, +01:00, or Z for UTC" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a=1", "a=2"], "the argument 'a' is given twice"),
        (["a"], "'a' is not of the form key=value"),
        (["=1"], "'=1' is not of the form key=value"),
        (["a b=1"], "'a b=1' is not of the form key=value"),
    ],
)
def test_arguments_that_are_none_are_usage(run: Run, words: list[str], message: str) -> None:
    status, out, err = run("submit", "index", *words)
    assert (status, out) == (2, "")
    assert message in err


def test_submit_json_prints_the_task(run: Run) -> None:
    status, out, _ = run("submit", "--json", "index")
    found = json.loads(out)
    assert status == 0
    assert list(found) == [*TASK_FIELDS, "created", "replaced"]
    assert (found["id"], found["name"], found["state"]) == ("17", "index", "queued")


def test_submit_wait_prints_the_id_alone_and_tells_by_its_status(run: Run, daemon: Daemon) -> None:
    daemon.answers["wait"] = lambda fields: [{"task": succeeded(17, 5)}]
    assert run("submit", "--wait", "index") == (0, "17\n", "")
    daemon.answers["wait"] = lambda fields: [{"task": failed(18)}]
    assert run("submit", "--wait", "index") == (
        4,
        "18\n",
        "taskctl: 18 failed: ValueError: no such file\n",
    )


def test_submit_wait_json_prints_the_ended_task_alone(run: Run, daemon: Daemon) -> None:
    daemon.answers["wait"] = lambda fields: [{"task": succeeded(17, (1, b"x"))}]
    status, out, _ = run("submit", "--wait", "--json", "index")
    assert status == 0
    assert [each["result"] for each in objects(out)] == [[1, {"$bytes": "eA=="}]]


def test_a_refused_submission_says_why(run: Run, daemon: Daemon) -> None:
    def refuse(fields: dict[str, Any]) -> None:
        raise KeyConflict("the key 'k' is task 3's")

    daemon.answers["submit"] = refuse
    assert run("submit", "index") == (1, "", "taskctl: the key 'k' is task 3's\n")


def test_run_queues_a_program_with_the_callers_directory(
    run: Run, daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("run", "--", "ffmpeg", "-i", "in.mov", "--", "--json") == (0, "17\n", "")
    found = asked(daemon)
    assert found["name"] == "command"
    assert data.decode(found["args"]) == {
        "argv": ["ffmpeg", "-i", "in.mov", "--", "--json"],
        "cwd": str(tmp_path),
        "env": None,
    }
    assert "options" not in found


def test_run_takes_another_directory_instead(
    run: Run, daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for named, taken in {"/srv/app": "/srv/app", "../there": f"{tmp_path}/there"}.items():
        assert run("run", "--cwd", named, "--", "true")[0] == 0
        assert data.decode(asked(daemon)["args"])["cwd"] == taken
        daemon.seen.clear()
    (tmp_path / "here").rmdir()  # as a deploy script stands in a release that is gone
    assert run("run", "--cwd", "/srv/app", "--", "true")[0] == 0
    for words in ([], ["--cwd", "there"]):
        status, _, err = run("run", *words, "--", "true")
        assert status == 2 and "the working directory is gone" in err and "--cwd DIR" in err


def test_run_says_what_happens_at_a_deploy(run: Run, daemon: Daemon) -> None:
    assert run("run", "--on-deploy", "checkpoint", "--queue", "q", "--", "make")[0] == 0
    assert asked(daemon)["options"] == {"on_deploy": "checkpoint"}
    assert asked(daemon)["queue"] == "q"
    assert run("run", "--on-deploy", "perhaps", "--", "make")[0] == 2


def test_run_needs_no_dashes_for_a_plain_program(run: Run, daemon: Daemon) -> None:
    assert run("run", "env", "--", "A=1")[0] == 0
    assert data.decode(asked(daemon)["args"])["argv"] == ["env", "--", "A=1"]


def test_run_without_a_program_is_usage(run: Run) -> None:
    for words in (["run"], ["run", "--"]):
        status, _, err = run(*words)
        assert status == 2
        assert "which program?" in err


# ── waiting ──────────────────────────────────────────────────────────────────────────────────


def test_wait_waits_for_all_and_is_4_unless_all_succeeded(run: Run, daemon: Daemon) -> None:
    daemon.add(succeeded(1), succeeded(2), failed(3), task(4, "held", reason="it died"))
    assert run("wait", "2", "1", "2") == (0, "2 succeeded\n1 succeeded\n", "")
    status, out, err = run("wait", "1", "3", "4")
    assert (status, out) == (4, "1 succeeded\n")
    assert err == "taskctl: 3 failed: ValueError: no such file\ntaskctl: 4 held: it died\n"


def test_wait_json_is_one_task_a_line(run: Run, daemon: Daemon) -> None:
    daemon.add(succeeded(1, 5), task(4, "cancelled"))
    status, out, err = run("wait", "--json", "1", "4")
    assert (status, err) == (4, "taskctl: 4 cancelled\n")
    assert [(each["id"], each["result"]) for each in objects(out)] == [("1", 5), ("4", None)]


def test_a_waiting_time_that_runs_out_is_4_still_running(run: Run, daemon: Daemon) -> None:
    daemon.answers["wait"] = lambda fields: ()
    status, out, err = run("wait", "--timeout", "0.05", "1")
    assert (status, out) == (4, "")
    assert "still running" in err
    assert run("wait", "--timeout", "soon", "1")[0] == 2


EVENTS = [
    event(1, 1, "queued", attempt=0, revision=None),
    event(2, 2, "queued", attempt=0, revision=None),
    event(3, 1, "running"),
    event(5, 1, "succeeded"),
    event(6, 2, "held", attempt=0, revision=None, reason="why not"),
]


def test_follow_in_a_pipe_prints_lines_and_exits_as_wait(run: Run, daemon: Daemon) -> None:
    daemon.add(succeeded(1), task(2, "held", reason="why not"))
    progress = {"progress": {"task": 1, "done": 5, "total": 10, "note": "half"}}
    daemon.answers["follow"] = lambda fields: [*EVENTS[:3], progress, *EVENTS[3:]]
    status, out, err = run("follow", "1", "2")
    assert out.splitlines() == [
        "1 index queued",
        "2 index queued",
        "1 index running (attempt 1, r1)",
        "1 index 50% 5/10 half",
        "1 index succeeded (attempt 1, r1)",
        "2 index held: why not",
    ]
    assert (status, err) == (4, "taskctl: 2 held: why not\n")


def test_follow_json_has_each_event_once_a_line(run: Run, daemon: Daemon) -> None:
    daemon.add(succeeded(1), succeeded(2))
    daemon.answers["follow"] = lambda fields: EVENTS
    status, out, _ = run("follow", "--json", "1", "2")
    found = objects(out)
    assert status == 0
    assert list(found[0]) == ["event", "task", "at", "state", "attempt", "revision", "reason"]
    assert [each["event"] for each in found] == [1, 2, 3, 5, 6]
    assert [each["task"] for each in found] == ["1", "2", "1", "1", "2"]


def test_ctrl_c_while_waiting_is_130_and_quiet(daemon: Daemon) -> None:
    for verb in ("wait", "follow"):
        daemon.add(task(1, "running"))
        daemon.answers["follow"] = lambda fields: tuple(EVENTS[:1])
        daemon.answers["wait"] = lambda fields: ()
        with spawn(daemon, verb, "1") as ran:
            daemon.wait_for(verb)
            signal_asleep(ran, signal.SIGINT)
            assert ran.communicate(timeout=60)[1] == b"", verb
        assert ran.returncode == 130, verb


# ── changing ─────────────────────────────────────────────────────────────────────────────────


def test_cancel_says_what_became_of_each(run: Run, daemon: Daemon) -> None:
    answers = {
        1: {"state": "cancelled", "was": "queued"},
        2: {"state": "running", "was": "running"},
        3: {"state": "succeeded", "was": "succeeded"},
        4: {"state": "cancelled", "was": "cancelled"},
    }
    daemon.answers["cancel"] = lambda fields: answers[fields["task"]]
    assert run("cancel", "1", "2", "3", "4") == (
        0,
        "1 cancelled\n"
        "2 is asked to leave and will be cancelled\n"
        "3 had already succeeded\n"
        "4 had already been cancelled\n",
        "",
    )


def test_one_that_is_refused_does_not_keep_the_others(run: Run, daemon: Daemon) -> None:
    def retried(fields: dict[str, Any]) -> dict[str, Any]:
        if fields["task"] == 1:
            raise Refused("task 1 is running")
        return {"state": "queued"}

    daemon.answers["retry"] = retried
    assert run("retry", "1", "2") == (1, "2 queued\n", "taskctl: task 1 is running\n")


# ── the command itself ───────────────────────────────────────────────────────────────────────


def test_no_daemon_is_3_and_names_what_was_tried(run: Run, tmp_path: Path) -> None:
    for words in (["--socket", str(tmp_path / "none"), "status"], ["status", "--socket", "/none"]):
        status, out, err = run(*words)
        assert (status, out) == (3, "")
        assert "none" in err


def test_wrong_usage_is_2(run: Run) -> None:
    for words in ([], ["walk"], ["status", "now"], ["status", "--", "x"], ["wait"], ["show"]):
        status, out, err = run(*words)
        assert (status, out) == (2, ""), words
        assert err


def test_help_and_version_need_no_daemon(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKD_SOCKET", "/none")
    assert run("--version")[:2] == (0, f"taskctl {taskd.__version__}\n")
    assert all(verb in run("--help")[1] for verb in taskctl.VERBS)
    for verb in taskctl.VERBS:
        status, out, _ = run(verb, "--help")
        assert status == 0
        assert verb in out


def test_a_reader_that_goes_away_is_no_trouble(daemon: Daemon) -> None:
    daemon.add(*(task(n) for n in range(1, 101)))
    read, write = os.pipe()
    os.close(read)
    with spawn(daemon, "list", "--json", stdout=write) as ran:
        os.close(write)
        assert ran.stderr is not None
        assert ran.stderr.read() == b""
    assert ran.returncode == 141


def test_a_name_that_the_terminal_cannot_show_is_escaped(daemon: Daemon) -> None:
    daemon.add(task(1, name="日\x1b[2J"))
    ran = subprocess.run(
        [sys.executable, "-c", COMMAND, "list"],
        env=os.environ | {"TASKD_SOCKET": daemon.path, "PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert b"\\u65e5\\x1b[2J" in ran.stdout


def test_status_starts_without_what_it_does_not_need() -> None:
    code = (
        "import sys; from taskd.cli import taskctl\n"
        "taskctl.parser(['status']); import taskd.client.blocking\n"
        "print(*sorted({'asyncio', 'dataclasses', 'inspect', 'logging', 'subprocess', 'psutil',"
        " 'pathlib', 'sqlite3', 'taskd.cli.output.progress', 'taskd.cli.verbs.tasks'}"
        " & set(sys.modules)))"
    )
    path = [str(Path(taskctl.__file__).parents[2]), *sys.path]
    ran = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path[:0] = {path!r}\n{code}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.stdout, ran.stderr) == ("\n", "")
