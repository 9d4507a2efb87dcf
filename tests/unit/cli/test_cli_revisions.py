"""taskctl revisions against a small daemon on a real socket."""

from __future__ import annotations

import time
from typing import Any

from cli_daemon import Daemon, Run, objects

from taskd.cli.output import text
from taskd.cli.verbs import revisions

OLD: dict[str, Any] = {
    "revision": "r41",
    "path": "/srv/r41",
    "hash": "ab12",
    "state": "draining",
    "workers": 12,
    "running": 10,
    "waiting": 0,
    "age": 3800.5,
    "memory": 50 * 2**20,
    "holds": [{"task": n, "name": "index"} for n in range(1, 11)],
}

NEW: dict[str, Any] = {
    "revision": "r42",
    "path": "/srv/r42",
    "hash": "cd34",
    "state": "current",
    "workers": 1,
    "running": 0,
    "waiting": 5000,
    "age": 5.0,
    "memory": None,
    "holds": [],
}

REJECTED = {
    "revision": "r43",
    "path": "/srv/r43",
    "reason": "r43 does not import: ModuleNotFoundError: No module named 'app'",
    "at": 1000.0,
}


def answer(daemon: Daemon, live: list[dict[str, Any]], *rejected: dict[str, Any]) -> None:
    daemon.answers["revisions"] = lambda fields: {"revisions": live, "rejected": list(rejected)}


def test_revisions_are_a_table_that_says_what_keeps_each_alive(run: Run, daemon: Daemon) -> None:
    answer(daemon, [NEW, OLD])
    assert run("revisions") == (
        0,
        "REVISION  STATE       AGE  WORKERS  MEMORY  RUNNING  WAITING  KEPT BY\n"
        "r42       current      5s        1       -        0     5000  -\n"
        "r41       draining  1h03m       12   50MiB       10        0  "
        "1 index, 2 index, 3 index and 7 more\n",
        "",
    )


def test_what_was_rejected_stands_below_with_its_reason_and_when(run: Run, daemon: Daemon) -> None:
    answer(daemon, [NEW], REJECTED | {"at": time.time() - 7500})
    lines = run("revisions")[1].splitlines()
    assert lines[2] == ""
    assert lines[3].split() == ["REJECTED", "WHEN", "WHY"]
    assert lines[4] == f"r43       2h05m ago  {REJECTED['reason']}"


def test_only_what_was_rejected_is_shown_on_demand(run: Run, daemon: Daemon) -> None:
    answer(daemon, [NEW], REJECTED)
    assert run("revisions", "--rejected")[1].split()[:3] == ["REJECTED", "WHEN", "WHY"]
    assert objects(run("revisions", "--rejected", "--json")[1]) == [REJECTED]


def test_revisions_json_has_the_live_ones_alone_one_a_line(run: Run, daemon: Daemon) -> None:
    answer(daemon, [NEW | {"unknown": 1}, OLD], REJECTED)
    first, second = objects(run("revisions", "--json")[1])
    assert list(first) == list(NEW)
    assert first == NEW
    assert second["holds"][9] == {"task": "10", "name": "index"}
    assert {**second, "holds": OLD["holds"]} == OLD


def test_a_table_is_cut_at_the_terminals_width() -> None:
    lines = revisions.page([OLD], [REJECTED], 2000.0, 60)
    assert max(map(text.columns, lines)) == 60
    assert lines[1].endswith("..")
