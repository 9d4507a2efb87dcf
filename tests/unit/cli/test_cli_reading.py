"""taskctl's reading verbs against a small daemon on a real socket: tables, pages, JSON."""

from __future__ import annotations

import time
from typing import Any

import pytest
from cli_daemon import TASK_FIELDS, Daemon, Run, failed, objects, spawn, succeeded, task


def test_list_is_a_table_with_the_newest_first(run: Run, daemon: Daemon) -> None:
    daemon.add(succeeded(1), failed(2), task(3, "held", reason="no live\nrevision knows it"))
    status, out, err = run("list")
    head, *rows = out.splitlines()
    assert (status, err) == (0, "")
    titles = "ID NAME STATE REVISION SUBMITTED TOOK NOTE"
    assert " ".join(head.split()) == titles
    assert [row.split()[:3] for row in rows] == [
        ["3", "index", "held"],
        ["2", "index", "failed"],
        ["1", "index", "succeeded"],
    ]
    assert rows[0].endswith("no live revision knows it")
    assert rows[1].endswith("ValueError: no such file")
    assert "2s" in rows[2].split()


def test_list_passes_on_what_it_is_narrowed_to(run: Run, daemon: Daemon) -> None:
    run("list", "--state", "failed", "--queue", "q", "--name", "n", "--limit", "5")
    assert daemon.seen == [
        ("list", {"state": "failed", "queue": "q", "name": "n", "limit": 5}),
        ("list", {"limit": 1000}),
    ]
    del daemon.seen[:]
    run("list", "--owner", "0", "--key", "k", "--revision", "r1", "--text", "t", "--since", "2h")
    fields = daemon.seen[0][1]
    assert time.time() - 7300 < fields.pop("since") < time.time() - 7100
    assert fields == {"owner": 0, "key": "k", "revision": "r1", "text": "t", "limit": 100}
    run("list", "--until", "2026-12-01T09:30+00:00")
    assert daemon.seen[1][1]["until"] == 1796117400.0
    assert run("list", "--since", "yesterday")[0] == 2
    assert run("list", "--owner", "no such user")[0] == 2
    assert run("list", "--state", "lost")[0] == 2
    assert run("list", "--limit", "0")[0] == 2


def test_list_shows_at_most_a_hundred_unless_told(run: Run, daemon: Daemon) -> None:
    daemon.add(*(task(n) for n in range(1, 151)))
    daemon.answers["status"] = lambda fields: {"states": {"queued": 5072}}
    _, out, err = run("list")
    assert len(out.splitlines()) == 101
    assert err == "100 of 5,072 are shown; more with --limit\n"
    assert run("list", "--key", "k")[2] == "the first 100 are shown; more with --limit\n"
    assert len(objects(run("list", "--json", "--limit", "140")[1])) == 140


def test_what_runs_and_what_is_held_comes_first_where_the_list_is_cut(
    run: Run, daemon: Daemon
) -> None:
    daemon.add(task(1, "held"), task(2, "running"), *(task(n) for n in range(3, 20)))
    daemon.answers["list"] = lambda fields: {
        "tasks": [
            each
            for _, each in sorted(daemon.tasks.items(), reverse=True)
            if each["state"] == fields.get("state", each["state"])
            and each["id"] < fields.get("before", 99)
        ][: fields["limit"]]
    }
    daemon.answers["status"] = lambda fields: {"states": {"queued": 17}}
    rows = run("list", "--limit", "4")[1].splitlines()[1:]
    assert [row.split()[0] for row in rows] == ["2", "1", "19", "18"]
    assert [row.split()[0] for row in run("list")[1].splitlines()[1:3]] == ["19", "18"]


def test_a_column_is_there_if_it_says_something_or_is_asked_for(run: Run, daemon: Daemon) -> None:
    daemon.add(task(1), task(2, queue="mail", arguments="to='anna', n=3", priority=5))
    head, second, _ = run("list")[1].splitlines()
    assert "QUEUE" in head and "ARGUMENTS" in head and "DONE" not in head and "NOTE" not in head
    assert second.endswith("to='anna', n=3")
    assert run("list", "--columns", "id,priority,key")[1].splitlines() == [
        "ID  PRIORITY  KEY",
        " 2         5  -",
        " 1         0  -",
    ]
    status, _, err = run("list", "--columns", "id,colour")
    assert status == 2 and "no column 'colour'; there are id, name" in err


def test_a_misspelt_name_is_told_the_right_one(run: Run, daemon: Daemon) -> None:
    daemon.add(task(1))
    daemon.answers["list"] = lambda fields: {
        "tasks": [] if "name" in fields or "before" in fields else [daemon.tasks[1]]
    }
    assert run("list", "--name", "indes")[2] == ("no task is named 'indes'; did you mean index?\n")


def test_list_of_nothing_prints_nothing(run: Run) -> None:
    assert run("list") == (0, "", "")
    assert run("list", "--json") == (0, "", "")


def test_list_json_has_each_task_with_its_result(run: Run, daemon: Daemon) -> None:
    daemon.add(succeeded(1, {"n": 3}), task(2, progress={"done": 1, "total": 4, "note": ""}))
    found = objects(run("list", "--json")[1])
    assert [list(each) for each in found] == [TASK_FIELDS, TASK_FIELDS]
    assert [each["id"] for each in found] == ["2", "1"]
    assert found[0]["progress"] == {"done": 1, "total": 4, "note": ""}
    assert found[1]["result"] == {"n": 3}


def test_list_json_asks_once_and_not_for_each_task(run: Run, daemon: Daemon) -> None:
    daemon.answers["list"] = lambda fields: {
        "tasks": [each for n, each in daemon.tasks.items() if n < fields.get("before", 2**63)]
    }
    daemon.add(*(succeeded(number, {"n": number}) for number in range(40, 0, -1)))
    found = objects(run("list", "--json", "--limit", "40")[1])
    assert [each["result"] for each in found] == [{"n": number} for number in range(40, 0, -1)]
    assert daemon.seen == [("list", {"limit": 40, "results": True})]


@pytest.mark.parametrize("state", ["held", "queued", "scheduled"])
def test_the_time_that_a_task_took_is_that_in_which_it_ran(
    run: Run, daemon: Daemon, state: str
) -> None:
    old = task(1, state, started=1001.0)
    daemon.add(old, task(2, state, started=1001.0, ran=65.0), task(3, "failed", ran=0.2, ended=9e9))
    assert [row.split()[6] for row in run("list")[1].splitlines()[1:]] == ["0.2s", "1m05s", "-"]
    assert "took       1m05s\n" in run("show", "2")[1]


def test_what_runs_took_so_long_so_far(run: Run, daemon: Daemon) -> None:
    daemon.add(task(2, "running", started=1001.0, ran=65.0))
    assert "took       1m05s so far\n" in run("show", "2")[1]


def test_show_tells_all_there_is(run: Run, daemon: Daemon) -> None:
    daemon.add(succeeded(1, [1, 2]), failed(2) | {"key": "", "priority": 3})
    status, out, _ = run("show", "1", "2")
    first, second = (
        dict(line.split(maxsplit=1) for line in page.splitlines() if line[:1].strip())
        for page in out.split("\n\n")[:2]
    )
    assert status == 0
    assert (first["state"], first["result"], first["took"]) == ("succeeded", "[1, 2]", "2s")
    assert "error" not in first
    assert (second["error"], second["key"]) == ("ValueError: no such file", "''")
    assert "result" not in second
    assert out.endswith("\nin f\n        x\n")


def test_show_json_is_one_object_a_line(run: Run, daemon: Daemon) -> None:
    daemon.add(failed(2))
    (found,) = objects(run("show", "--json", "2")[1])
    assert list(found) == [*TASK_FIELDS, "attempts"]
    assert found["error"]["type"] == "ValueError"
    assert (found["id"], found["ended"]) == ("2", 1002.0)


def test_an_unknown_task_is_1_with_the_reason(run: Run, daemon: Daemon) -> None:
    for op in ("log", "cancel", "retry", "follow"):
        daemon.answers[op] = lambda fields: daemon.known(5)
    for verb in ("show", "wait", "follow", "logs", "cancel", "retry"):
        assert run(verb, "5") == (1, "", "taskctl: no task 5\n"), verb


@pytest.mark.parametrize("word", ["x", "0", "-1", "1.5", "99999999999999999999", "\u0661"])
def test_what_is_no_task_id_is_usage(run: Run, word: str) -> None:
    assert run("show", word)[0] == 2


STATUS = {
    "pid": 7,
    "revision": "r41",
    "release": "/srv/r41",
    "confirmed": "/srv/r41",
    "symlink": "/srv/r42",
    "link": "/srv/current",
    "states": {"queued": 3, "running": 2, "succeeded": 0},
    "queues": {"default": {"running": 2, "queued": 3, "concurrency": 8}},
    "taskd": "0.3.0",
    "note": "",
}


def test_status_is_a_short_page(run: Run, daemon: Daemon) -> None:
    daemon.answers["status"] = lambda fields: STATUS
    assert run("status") == (
        0,
        "taskd 0.3.0, pid 7\n"
        "revision r41: /srv/r41\n"
        "/srv/current names another release: /srv/r42 (taskctl reload)\n"
        "\n"
        "tasks: 3 queued, 2 running\n"
        "\n"
        "QUEUE    RUNNING  QUEUED  CONCURRENCY\n"
        "default        2       3            8\n",
        "",
    )


def test_status_json_has_the_documented_fields(run: Run, daemon: Daemon) -> None:
    daemon.answers["status"] = lambda fields: STATUS
    (found,) = objects(run("status", "--json")[1])
    names = ["pid", "revision", "release", "confirmed", "symlink", "states", "queues"]
    assert list(found) == [*names, "deploy", "paused"]
    assert found == {name: STATUS[name] for name in names} | {"deploy": None, "paused": None}


def deploying(*waits_for: str, phase: str = "quiescing") -> dict[str, Any]:
    since = time.time() - 65.5
    return {"phase": phase, "since": since, "release": "/srv/r42", "waits_for": list(waits_for)}


def test_status_has_a_line_of_80_columns_on_a_deploy_under_way(run: Run, daemon: Daemon) -> None:
    deploy = deploying("workers being started: 2", "claims: 1", "commands:\n12")
    daemon.answers["status"] = lambda fields: STATUS | {"symlink": "/srv/r41", "deploy": deploy}
    assert run("status")[1].splitlines()[2] == (
        "deploy of r42: quiescing for 1m05s; waits for workers being started: 2, claims.."
    )
    assert objects(run("status", "--json")[1])[0]["deploy"] == deploy
    deploy["waits_for"] = []
    assert run("status")[1].splitlines()[2] == "deploy of r42: quiescing for 1m05s"


def test_doctor_says_of_a_deploy_under_way_what_it_waits_for_and_where_to_look(
    run: Run, daemon: Daemon
) -> None:
    deploy = deploying("workers being started: 2", "claims: 1")
    checks = [{"name": "sockets", "ok": True, "text": "given"}]
    daemon.answers["status"] = lambda fields: STATUS | {"checks": checks, "deploy": deploy}
    assert run("doctor")[1].splitlines() == [
        "ok  sockets: given",
        "deploy of r42: quiescing for 1m05s (/srv/r42)",
        "  waits for workers being started: 2",
        "  waits for claims: 1",
        "  in this phase workers and claims that have begun come to their end",
        "  each phase has a deadline: then the deploy is refused, and `taskctl status` says why",
    ]
    assert objects(run("doctor", "--json")[1])[0]["deploy"] == deploy
    deploy["phase"] = "a phase of a later taskd"
    assert len(run("doctor")[1].splitlines()) == 5


def test_without_a_deploy_neither_says_anything_of_one(run: Run, daemon: Daemon) -> None:
    for more in ({}, {"deploy": None}):  # a daemon of 0.2 does not send it
        daemon.answers["status"] = lambda fields, more=more: STATUS | more
        assert "deploy of" not in run("status")[1] + run("doctor")[1]
        assert objects(run("doctor", "--json")[1])[0]["deploy"] is None


def test_status_shows_what_became_of_the_last_deploy(run: Run, daemon: Daemon) -> None:
    note = "last deploy refused: r42 does not import:\nKeyError"
    daemon.answers["status"] = lambda fields: STATUS | {"symlink": "/srv/r41", "note": note}
    assert run("status")[1].splitlines()[:3] == [
        "taskd 0.3.0, pid 7",
        "revision r41: /srv/r41",
        "last deploy refused: r42 does not import: KeyError",
    ]


def test_logs_are_passed_on_byte_for_byte(daemon: Daemon) -> None:
    text = bytes(range(256)) * 10

    def part(fields: dict[str, Any]) -> dict[str, Any]:
        start = fields.get("offset", 0)
        some = text[start : start + 1000]
        return {"data": some, "offset": start + len(some), "size": len(text), "ended": False}

    daemon.answers["log"] = part
    with spawn(daemon, "logs", "5") as ran:
        assert ran.communicate(timeout=60) == (text, b"")
    assert ran.returncode == 0


def test_logs_follow_goes_on_until_the_task_has_ended(daemon: Daemon) -> None:
    parts = [b"one\n", b"", b"two\n"]
    size = 0

    def part(fields: dict[str, Any]) -> dict[str, Any]:
        nonlocal size
        some = parts.pop(0)
        assert fields.get("offset", 0) == size
        size += len(some)
        return {"data": some, "offset": size, "size": size, "ended": not parts}

    daemon.answers["log"] = part
    with spawn(daemon, "logs", "-f", "5") as ran:
        assert ran.communicate(timeout=60) == (b"one\ntwo\n", b"")
    assert ran.returncode == 0
