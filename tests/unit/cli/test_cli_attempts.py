"""What `taskctl show` says of a task's attempts, its retries, and its next try."""

from __future__ import annotations

import time
from typing import Any

import pytest
from cli_daemon import Daemon, Run, failed, objects, succeeded, task

from taskd.cli.output import attempts
from taskd.client.records import AttemptInfo, attempt_info
from taskd.errors import ProtocolError, Refused


def tried(number: int, how: str | None = "failed", **more: Any) -> dict[str, Any]:
    """From ten times as many seconds on, for four seconds."""
    return {
        "attempt": number,
        "started": 10.0 * number,
        "ended": 10.0 * number + 4 if how else None,
        "revision": "r41",
        "worker": "ab" * 16,
        "pid": 4711,
        "how": how,
        "reason": None,
        "error": {"type": "ValueError", "message": "no\nmore", "traceback": "…"}
        if how == "failed"
        else None,
        "delay": None,
    } | more


def rows(out: str) -> list[list[str]]:
    """The cells of the table."""
    lines = out.splitlines()
    start = next(n for n, line in enumerate(lines) if line.strip().startswith("ATTEMPT"))
    return [line.split() for line in lines[start + 1 :] if line]


def test_show_has_a_line_for_each_attempt(run: Run, daemon: Daemon) -> None:
    daemon.add(task(2, "running", attempt=3, started=10.0))
    daemon.attempts[2] = [
        tried(1, delay=40.0),
        tried(2, "interrupted", reason="interrupted: deploy of r42"),
        tried(3, None, started=time.time() - 2),
    ]
    first, second, third = rows(run("show", "2")[1])
    assert first[:2] == ["1", "failed"]
    assert " ".join(first[4:]) == "4s r41 4711 ValueError: no; the next one 40s later"
    assert " ".join(second[4:]) == "4s r41 4711 interrupted: deploy of r42"
    assert second[1] == "interrupted"
    assert third[:2] == ["3", "runs"]


@pytest.mark.parametrize("of", [[], [tried(1, "succeeded")], [tried(1, None)]])
def test_a_single_attempt_needs_no_table(
    run: Run, daemon: Daemon, of: list[dict[str, Any]]
) -> None:
    daemon.add(succeeded(1))
    daemon.attempts[1] = of
    assert "ATTEMPT" not in run("show", "1")[1]


def test_of_many_attempts_the_first_and_the_last_are_shown_and_the_rest_is_said(
    run: Run, daemon: Daemon
) -> None:
    daemon.add(failed(1))
    daemon.attempts[1] = [tried(number) for number in (1, 2, 3, 4, 5, *range(51, 101))]
    out = run("show", "1")[1]
    assert "  (87 more that are not shown)\n" in out
    numbers = [row[0] for row in rows(out) if row[0].isdigit()]
    assert numbers == [str(n) for n in (1, 2, 3, *range(91, 101))]
    assert len(objects(run("show", "--json", "1")[1])[0]["attempts"]) == 55


def test_json_has_each_attempt_with_its_error(run: Run, daemon: Daemon) -> None:
    daemon.add(failed(1))
    daemon.attempts[1] = [tried(1, delay=40.0)]
    (found,) = objects(run("show", "--json", "1")[1])
    assert found["attempts"] == [tried(1, delay=40.0)]


def test_the_next_try_is_told_with_the_wait_that_was_drawn(run: Run, daemon: Daemon) -> None:
    at = time.time() + 35
    daemon.add(task(1, "scheduled", attempt=1, run_at=at), task(2, "scheduled", run_at=at))
    daemon.attempts[1] = [tried(1, delay=40.0)]
    (line,) = (line for line in run("show", "1")[1].splitlines() if line.startswith("next try"))
    assert line.endswith("s), 40s after the failure")
    out = run("show", "2")[1]
    assert "next try" not in out and "not before" in out


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (
            {"used": 1, "allowed": 5, "waits": [10, 20, 40, 80, 160], "by_function": False},
            "1 of 5 used; waits 10s, 20s, 40s, 1m20s, 2m40s: gives up after about 5m10s",
        ),
        (
            {"used": 0, "allowed": 99, "waits": [1.0] * 10, "by_function": False},
            f"0 of 99 used; waits {', '.join(['1s'] * 10)}, …",
        ),
        (
            {"used": 0, "allowed": 2, "waits": [1, 2], "by_function": True},
            "0 of 2 used; a function of the task's says how long each waits",
        ),
    ],
)
def test_the_plan_of_the_retries_is_written_out(
    run: Run, daemon: Daemon, told: dict[str, Any], said: str
) -> None:
    daemon.add(task(1, "running", retries=told))
    assert f"retries    {said}\n" in run("show", "1")[1]


def test_why_a_failure_was_final_is_said(run: Run, daemon: Daemon) -> None:
    reason = "ValueError: no such file\nreally; not tried again: give_up_on names ValueError"
    daemon.add(failed(1) | {"reason": reason})
    said = "error      ValueError: no such file; not tried again: give_up_on names ValueError\n"
    assert said in run("show", "1")[1]


def test_a_daemon_that_keeps_no_attempts_shows_the_task_without(run: Run, daemon: Daemon) -> None:
    def refused(fields: dict[str, Any]) -> dict[str, Any]:
        raise Refused("no operation 'attempts'")

    daemon.answers["attempts"] = refused
    daemon.add(failed(1))
    assert run("show", "1")[0] == 0
    assert objects(run("show", "--json", "1")[1])[0]["attempts"] == []


def test_an_attempt_of_a_later_version_is_told_all_the_same() -> None:
    later = attempt_info(tried(1, "timed out", more="of it"))
    assert isinstance(later, AttemptInfo)
    assert "timed out" in "\n".join(attempts.table([later, later], 99.0, 200))
    for wrong in (None, {}, {"attempt": "1"}):
        with pytest.raises(ProtocolError):
            attempt_info(wrong)
