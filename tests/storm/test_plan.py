"""A seed stands for one sequence of actions and of submissions, and the app does what they say."""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

import taskd.testing
from contrib.storm import place, plan, programs, workload
from contrib.storm.options import RATES, parse


def test_a_seed_repeats_its_actions_and_another_one_has_others() -> None:
    first = plan.actions("7", 600, RATES)
    assert first == plan.actions("7", 600, RATES)
    assert plan.digest(first) != plan.digest(plan.actions("8", 600, RATES))


def test_another_rate_of_one_kind_leaves_the_others_as_they_were() -> None:
    more = RATES | {"kill master": 60.0}
    without = [a for a in plan.actions("7", 600, RATES) if a.kind != "kill master"]
    assert without == [a for a in plan.actions("7", 600, more) if a.kind != "kill master"]


def test_a_seed_repeats_its_submissions() -> None:
    first = list(islice(workload.submissions("7.0", 60, "script"), 200))
    assert first == list(islice(workload.submissions("7.0", 60, "script"), 200))
    assert len({submission.tag for submission in first}) == 200


def test_half_an_hour_has_as_many_actions_as_it_should() -> None:
    kinds = [action.kind for action in plan.actions("7", 1800, RATES)]
    assert kinds.count("kill master") > 300
    assert kinds.count("kill worker") > 3000
    assert sum(kinds.count(kind) for kind in ("deploy", "reload", "hangup", "rollback")) > 300


def test_rates_are_read_from_the_command_line() -> None:
    given = parse(["--seed", "7", "--scale", "2", "--rate", "kill master=1"])
    assert given.rates["kill master"] == 1.0
    assert given.rates["kill worker"] == 2 * RATES["kill worker"]


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The app that the storm deploys, imported here."""
    (tmp_path / "release_name.py").write_text("RELEASE = 'here'\n")
    (tmp_path / "claims").mkdir()
    (tmp_path / "effects").touch()
    monkeypatch.setenv("STORM_EFFECTS", str(tmp_path / "effects"))
    monkeypatch.setenv("STORM_CLAIMS", str(tmp_path / "claims"))
    monkeypatch.setenv("TASKD_TASK_ID", "1")
    monkeypatch.setenv("TASKD_ATTEMPT", "1")
    monkeypatch.setattr(sys, "path", [place.RELEASE, str(tmp_path), *sys.path])
    import storm_tasks  # type: ignore[import-not-found]

    yield storm_tasks
    for name in ("storm_tasks", "witness", "release_name"):
        del sys.modules[name]


@pytest.mark.parametrize("kind", ["plain", "later"])
def test_a_program_comes_to_what_the_checker_expects(app: Any, kind: str) -> None:
    inner = [["step", "in", 0, 5], ["each", "cells", 2, "cursor", [["work", 0]]]]
    program = [["step", "a", 0, 0], ["each", "rows", 3, "sequence", inner], ["checkpoint"]]
    task = getattr(app, kind)
    ran = taskd.testing.run(task, {"tag": "t", "program": program})
    assert ran.result["sum"] == programs.total(program) != 0
    assert list(ran.result["steps"]) == programs.outer_steps(program) == ["a"]
