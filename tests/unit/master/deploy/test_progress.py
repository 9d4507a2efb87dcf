"""What the master tells of the deploy that is under way."""

from __future__ import annotations

import time
from typing import Any

from bench import Bench

from taskd.model.upgrade import Step


def test_a_deploy_under_way_is_told_with_what_its_phase_waits_for(bench: Bench) -> None:
    deploy, progress = bench.master.deploy, bench.master.deploy.progress
    assert deploy.under_way() is None
    deploy.path = "/srv/r2"
    before = time.time()
    for step in (Step.BEGIN, Step.PROVEN, Step.ACCEPTED, Step.TRIED, Step.HOOKED, Step.QUIET):
        progress.step(step)
        told: Any = deploy.under_way()
        assert (told["phase"], told["release"]) == (progress.phase.value, "/srv/r2")
        assert before <= told["since"] <= time.time(), "the start of this phase"
        before = told["since"]
    assert progress.waits_for() == [], "emptying, and no client has asked for anything"
    progress._in_flight = lambda: 2
    assert progress.waits_for() == ["requests: 2"]
