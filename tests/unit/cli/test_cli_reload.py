"""taskctl reload, and plans, against a small daemon on a real socket."""

from __future__ import annotations

from typing import Any

import pytest
from cli_daemon import Daemon, Run, objects
from cli_site import ANSWER, HELD, LINE, PLAN, REASON, deploys, refuse


def test_reload_tells_on_one_line_what_serves_and_what_drains(run: Run, daemon: Daemon) -> None:
    daemon.answers["reload"] = lambda fields: ANSWER
    assert run("reload") == (0, LINE, "")
    assert deploys(daemon) == [{}]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"previous": None}, "r42 serves; pause 63 ms\n"),
        ({"previous": "r42"}, "r42 serves; pause 63 ms\n"),
        ({"plan": None}, "r42 serves (r41 drains); pause 63 ms\n"),
        (
            {"plan": PLAN | {"running": [], "on": {}}},
            "r42 serves (r41 drains: 0 running); pause 63 ms\n",
        ),
    ],
)
def test_what_is_not_so_is_not_said(
    run: Run, daemon: Daemon, change: dict[str, Any], line: str
) -> None:
    daemon.answers["reload"] = lambda fields: ANSWER | change
    assert run("reload") == (0, line, "")


def test_a_refused_reload_is_1_with_the_reason_alone(run: Run, daemon: Daemon) -> None:
    daemon.answers["reload"] = refuse
    for words in ([], ["--json"], ["--plan"]):
        assert run("reload", *words) == (1, "", f"taskctl: {REASON}\n")


def test_a_deploy_that_holds_tasks_says_which_and_why(run: Run, daemon: Daemon) -> None:
    daemon.answers["reload"] = lambda fields: ANSWER | {"plan": HELD}
    status, out, err = run("reload", "--allow-held")
    assert (status, out) == (0, LINE)
    assert err == (
        "taskctl: warning: index: its steps changed (count went) but its version is still 1\n"
        "taskctl: held: 2 waiting gone (version 1): r42 does not know it\n"
    )
    assert deploys(daemon) == [{"allow_held": True}]


def test_a_task_that_cannot_move_and_runs_on_is_not_said_to_be_held(
    run: Run, daemon: Daemon
) -> None:
    row = {"task": 4, "name": "gone", "revision": "r41", "verdict": "held", "why": "it went (…)"}
    plan = PLAN | {"running": [row], "counts": {"held": 1, "continues": 120}, "on": {"r41": 1}}
    daemon.answers["reload"] = lambda fields: ANSWER | {"plan": plan}
    _, _, err = run("reload", "--allow-held")
    assert err == "taskctl: would be held: task 4 (gone): it went (…)\n"


def test_what_the_lists_leave_out_is_counted(run: Run, daemon: Daemon) -> None:
    counts = {"finishes": 900, "moves": 1, "continues": 120, "held": 30, "accepted": 12}
    plan = HELD | {"counts": counts, "on": {"r41": 900, "r40": 1}}
    daemon.answers["reload"] = lambda fields: ANSWER | {"plan": plan}
    status, out, err = run("reload", "--allow-held")
    assert (status, out) == (0, "r42 serves (r41 drains: 900 running); pause 63 ms\n")
    assert err.endswith("r42 does not know it\ntaskctl: held: 40 more\n")
    daemon.answers["reload"] = lambda fields: {"plan": plan}
    status, out, err = run("reload", "--plan")
    assert (status, err[:31]) == (1, "taskctl: 30 tasks would be held")
    assert "tasks that are not shown: 898 finishes, 12 accepted, 28 held" in out


def test_what_the_hook_before_wrote_is_shown_beside_the_verdict(run: Run, daemon: Daemon) -> None:
    daemon.answers["reload"] = lambda fields: ANSWER | {"hook": "added\n\x1b[1mone column\n"}
    assert run("reload") == (
        0,
        LINE,
        "taskctl: before: added\ntaskctl: before: \\x1b[1mone column\n",
    )


def test_reload_json_is_the_verdict_with_its_plan(run: Run, daemon: Daemon) -> None:
    daemon.answers["reload"] = lambda fields: ANSWER
    status, out, err = run("reload", "--json")
    (found,) = objects(out)
    assert (status, err) == (0, "")
    assert [row["task"] for row in found["plan"]["running"]] == ["17", "18", "9"]
    found["plan"]["running"] = PLAN["running"]
    assert found == ANSWER


def test_a_lost_verdict_is_said_and_no_second_deploy_is_asked_for(run: Run, daemon: Daemon) -> None:
    daemon.answers["reload"] = lambda fields: daemon.hang_up() or {}
    daemon.answers["rollback"] = daemon.answers["reload"]
    for verb in ("reload", "rollback"):
        status, out, err = run(verb)
        assert (status, out) == (1, "")
        assert f"how the {verb} ended" in err
    assert [op for op, _ in daemon.seen] == ["reload", "rollback"]


# ── the plan ─────────────────────────────────────────────────────────────────────────────────


def test_a_plan_shows_what_would_become_of_each_and_is_0(run: Run, daemon: Daemon) -> None:
    daemon.answers["reload"] = lambda fields: {"plan": PLAN}
    assert run("reload", "--plan") == (
        0,
        "r42: 2 finishes, 1 moves, 120 continues\n"
        "\n"
        "TASK  NAME   ON   VERDICT   WHY\n"
        "  17  index  r41  finishes  -\n"
        "  18  mail   r41  moves     -\n"
        "   9  index  r40  finishes  -\n"
        "\n"
        "WAITING  NAME  VERSION  ARGUMENTS  VERDICT    WHY\n"
        "    120  mail        2  to,text    continues  -\n",
        "",
    )
    assert deploys(daemon) == [{"plan": True}]


def test_a_plan_that_would_hold_something_is_1_and_names_the_way_on(
    run: Run, daemon: Daemon
) -> None:
    daemon.answers["reload"] = lambda fields: {"plan": HELD}
    status, out, err = run("reload", "--plan")
    assert status == 1
    assert out.splitlines()[0] == "r42: 2 finishes, 1 moves, 120 continues, 2 held"
    assert out.splitlines()[-3:] == [
        "      2  gone        1  -          held       r42 does not know it",
        "",
        "warning: index: its steps changed (count went) but its version is still 1",
    ]
    assert "2 tasks would be held" in err
    assert "--allow-held" in err
    assert run("reload", "--plan", "--allow-held")[::2] == (0, "")
    assert deploys(daemon)[1] == {"plan": True, "allow_held": True}


def test_a_plan_of_nothing_says_so(run: Run, daemon: Daemon) -> None:
    empty = {"target": "r42", "running": [], "waiting": [], "warnings": [], "counts": {}, "on": {}}
    daemon.answers["reload"] = lambda fields: {"plan": empty}
    assert run("reload", "--plan") == (0, "r42: nothing runs or waits\n", "")


def test_a_plan_as_json_is_one_object_with_the_same_exit_codes(run: Run, daemon: Daemon) -> None:
    daemon.answers["reload"] = daemon.answers["rollback"] = lambda fields: {"plan": HELD}
    for verb in ("reload", "rollback"):
        status, out, err = run(verb, "--plan", "--json")
        ((name, found),) = objects(out)[0].items()
        assert (status, name) == (1, "plan")
        assert "--allow-held" in err
        assert [row["task"] for row in found["running"]] == ["17", "18", "9"]
        assert found["waiting"] == HELD["waiting"]
