"""taskctl drain against a small daemon on a real socket."""

from __future__ import annotations

import time
from typing import Any

import pytest
from cli_daemon import Daemon, Run, objects

from taskd.cli.verbs import drain
from taskd.errors import NotAllowed, Refused

NOW = 1_800_000_000.0

RUNNING: dict[str, Any] = {
    "limit": 60.0,
    "running": 3,
    "tasks": [
        {"task": 7, "name": "import", "revision": "r41", "started": NOW - 3800, "saved": NOW - 2},
        {"task": 8, "name": "guess", "revision": "r42", "started": NOW - 5, "saved": None},
        {"task": 9, "name": "command", "revision": None, "started": None, "saved": None},
    ],
}


# ── a revision ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("words", "how", "asked", "line"),
    [
        ([], "finish", 0, "r41 drains: 3 running"),
        (["--checkpoint"], "checkpoint", 2,
         "r41 drains: 3 running, 2 asked to leave at the next safe point"),
        (["--now"], "now", 3, "r41 drains: 3 running, 3 ended"),
    ],
)  # fmt: skip
def test_drain_says_how_many_still_run_and_were_asked(
    run: Run, daemon: Daemon, words: list[str], how: str, asked: int, line: str
) -> None:
    daemon.answers["drain"] = lambda fields: {"running": 3, "asked": asked}
    assert run("drain", "--revision", "r41", *words) == (0, line + "\n", "")
    assert daemon.seen == [("drain", {"revision": "r41", "how": how})]
    assert objects(run("drain", "--revision", "r41", *words, "--json")[1]) == [
        {"revision": "r41", "running": 3, "asked": asked}
    ]


def test_a_refused_drain_says_why(run: Run, daemon: Daemon) -> None:
    for error in (Refused("no revision 'r9' is alive"), NotAllowed("only an operator may do this")):

        def refuse(fields: dict[str, Any], error: Refused = error) -> None:
            raise error

        daemon.answers["drain"] = refuse
        assert run("drain", "--revision", "r9", "--now") == (1, "", f"taskctl: {error}\n")


# ── what a stop would do ─────────────────────────────────────────────────────────────────────


def test_what_a_stop_would_interrupt_is_a_table() -> None:
    assert drain.page(RUNNING, NOW, 200) == [
        "a stop would interrupt 3 tasks, and wait 1m00s at most for all to leave",
        "",
        "TASK  NAME     REVISION  RUNNING   SAVED  WHEN STOPPED",
        "   7  import   r41         1h03m  2s ago  "
        "leaves at its next safe point, and goes on from there",
        "   8  guess    r42            5s       -  "
        "has saved nothing: begins anew, unless it comes to a safe point",
        "   9  command  -               -       -  "
        "gets SIGTERM, and is run again after the next start",
    ]
    assert drain.page({"tasks": [], "limit": 60.0}, NOW, 200) == [
        "a stop would interrupt nothing: no task is running"
    ]


def test_drain_alone_shows_and_stops_nothing(run: Run, daemon: Daemon) -> None:
    daemon.answers["shutdown"] = lambda fields: RUNNING
    status, out, _ = run("drain")
    assert status == 0 and out.startswith("a stop would interrupt 3 tasks")
    (shown,) = objects(run("drain", "--json")[1])
    assert [task["task"] for task in shown["tasks"]] == ["7", "8", "9"]
    assert shown["stop_timeout"] == 60.0
    assert daemon.seen == [("shutdown", {"plan": True})] * 2


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        ({"asked": 0, "ended": [], "kept": [], "counts": {"ended": 0, "kept": 0}},
         "tasks asked to leave: 0; 0 left at a safe point"),
        ({"asked": 9, "ended": [7, 8], "kept": [], "counts": {"ended": 5, "kept": 0}},
         "tasks asked to leave: 9; 4 left at a safe point, 5 did not and were ended: 7, 8 and "
         "3 more"),
        ({"asked": 3, "ended": [7], "kept": [], "counts": {"ended": 1, "kept": 0}},
         "tasks asked to leave: 3; 2 left at a safe point, 1 did not and was ended: 7"),
        ({"asked": 40, "ended": [], "kept": list(range(1, 23)), "counts": {"ended": 0, "kept": 22}},
         "tasks asked to leave: 40; 18 left at a safe point, 22 did not and go on: "
         "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20 and 2 more"),
    ],
)  # fmt: skip
def test_how_a_stop_went_is_one_line(answer: dict[str, Any], line: str) -> None:
    assert drain.stopped(answer) == line


def test_a_unit_that_has_no_job_is_stopped_as_by_a_signal(run: Run, daemon: Daemon) -> None:
    """No service manager has such a unit, so that nobody says what the stop is for."""
    daemon.answers["status"] = lambda fields: {}
    answer = {"asked": 1, "ended": [], "kept": [4], "counts": {"ended": 0, "kept": 1}}
    daemon.answers["shutdown"] = lambda fields: answer
    unit = f"taskd-test-{time.monotonic_ns()}.service"
    status, out, _ = run("drain", "--unit", unit)
    assert (status, out) == (
        0,
        "tasks asked to leave: 1; 0 left at a safe point, 1 did not and goes on: 4\n",
    )
    assert daemon.seen == [("status", {}), ("shutdown", {})]
    assert objects(run("drain", "--unit", unit, "--json")[1]) == [
        {"asked": 1, "ended": [], "kept": ["4"]}
    ]


def test_drain_wants_one_thing_and_one_way(run: Run, daemon: Daemon) -> None:
    for words in (
        ["r41"],
        ["--revision"],
        ["--now"],
        ["--user"],
        ["--unit", "taskd.service", "--now"],
        ["--unit", "taskd.service", "--revision", "r41"],
        ["--revision", "r41", "--now", "--checkpoint"],
    ):
        assert run("drain", *words)[0] == 2, words
    assert daemon.seen == []
