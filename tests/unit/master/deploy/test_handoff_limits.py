"""What the deploy's limits and hooks reckon with, and what of them crosses an exec."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from bench import Bench, NewBench
from forked import in_child

from taskd.handoff.dump import dump
from taskd.handoff.load import Loader
from taskd.master.deploy import after_drain, capacity, hooks
from taskd.model.revision import RevisionState
from taskd.model.upgrade import Phase
from taskd.upgrade import snapshot


def test_limits_and_hooks_cross_an_exec(tmp_path: Path) -> None:
    def under_test() -> tuple[float, str, str | None]:
        master = Bench(tmp_path).master
        revision = next(iter(master.revisions))
        revision.state, revision.draining_since = RevisionState.DRAINING, 1234.5
        master.revisions.target, master.deploy.hook = revision, "said “ö”\n"
        master.after_drain.previous = "/srv/r0"
        loaded = Loader(snapshot.decode(dump(master, [], Phase.ADOPTING))).load()
        began = next(iter(loaded.revisions)).draining_since
        return began, loaded.deploy.hook, loaded.after_drain.previous

    assert in_child(under_test) == (1234.5, "said “ö”\n", "/srv/r0")


def test_a_limit_is_reckoned_from_the_time_that_was_carried(new_bench: NewBench) -> None:
    """Long over for one revision, not for the other."""
    bench = new_bench(daemon={"drain_limit": "1h"})
    bench.submit()
    worker = bench.fork()
    order = bench.run(worker)
    master = bench.master
    old = bench.revision
    new = master.revisions.add(f"{old.path}-new", master.config.app)
    new.tasks, new.state = dict(old.tasks), RevisionState.PROVEN
    master.revisions.confirm(new)
    master.draining.look()
    for _ in range(5):
        bench.turn()
    assert not worker.of("leave")
    old.draining_since -= 3600.0
    master.draining.look()
    asked = bench.until(lambda: worker.of("leave"))[0]
    assert (asked["task"], asked["attempt"]) == (order["task"], order["attempt"])
    assert asked["why"] == "r1 has drained for longer than drain_limit (3600 s)"


def test_a_revision_that_is_promoted_again_drains_no_more(bench: Bench) -> None:
    revisions = bench.master.revisions
    new = revisions.add("/srv/r2", bench.master.config.app)
    new.state = RevisionState.PROVEN
    revisions.confirm(new)
    assert bench.revision.draining_since > 0
    revisions.confirm(bench.revision)
    assert bench.revision.draining_since == 0
    assert new.draining_since > 0


def capacity_of(bench: Bench) -> capacity.Capacity:
    master = bench.master
    return capacity.Capacity(master.revisions, master.workers, master.attempts)


@pytest.mark.parametrize(("concurrency", "workers"), [(1, 1), (20, 20), (1_000_000, 32)])
def test_the_memory_of_a_new_revision_is_a_zygote_and_a_bounded_number_of_workers(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, concurrency: int, workers: int
) -> None:
    def like(pid: int | None) -> int:
        assert pid == bench.revision.zygote.pid
        return 50_000_000

    monkeypatch.setattr(capacity.memory, "alone", like)
    settings = bench.master.config._replace(queues={"default": concurrency})
    assert capacity_of(bench).needed(settings) == 50_000_000 + workers * capacity.WORKER


def test_a_place_that_is_taken_needs_no_worker_more(bench: Bench) -> None:
    settings = bench.master.config._replace(queues={"default": 4, "other": 2})
    bench.submit()
    bench.run(bench.fork())
    bench.revision.zygote.pid, pid = None, bench.revision.zygote.pid
    assert capacity_of(bench).needed(settings) == 5 * capacity.WORKER
    bench.revision.zygote.pid = pid


def free(monkeypatch: pytest.MonkeyPatch, size: int | None) -> None:
    monkeypatch.setattr(capacity.memory, "available", lambda: size)
    monkeypatch.setattr(capacity.Capacity, "needed", lambda *_: 10)


@pytest.mark.parametrize(("size", "fits"), [(None, True), (110, True), (109, False)])
def test_the_reserve_must_be_left_to_the_byte(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, size: int | None, fits: bool
) -> None:
    free(monkeypatch, size)
    app = bench.master.config.app._replace(memory_reserve=100)
    settings = bench.master.config._replace(app=app)

    asked = capacity_of(bench)
    if fits:
        asked.check(settings, "/srv/r2")
    else:
        with pytest.raises(capacity.DeployRefused, match="memory_reserve"):
            asked.check(settings, "/srv/r2")


def test_an_after_drain_that_cannot_be_started_is_tried_again_and_stays_due(
    new_bench: NewBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of descriptors, say: nobody would run it later."""
    real, tries = hooks.Command, []

    def start(*args: Any) -> hooks.Command:
        tries.append(args)
        if len(tries) < 3:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return real(*args)

    monkeypatch.setattr(after_drain, "AGAIN", 0.01)
    monkeypatch.setattr(after_drain, "Command", start)
    bench = new_bench(hooks={"after_drain": ["true"]})
    master = bench.master
    master.after_drain.promise("/srv/r0")
    master.after_drain.look()
    due = os.path.join(master.places.state, "after-drain")
    bench.until(lambda: len(tries) == 2)
    assert os.path.exists(due)
    bench.until(lambda: master.children.reap() or not os.path.exists(due))
    assert (len(tries), master.life.note) == (3, "after_drain of r1 is done")


def test_output_is_kept_whole_up_to_its_bound_and_then_its_end() -> None:
    output = hooks.Output()
    output.take(b"a" * hooks.OUTPUT)
    assert output.text() == "a" * hooks.OUTPUT
    output.take(b"bc\xff")
    assert output.text() == (
        "(3 bytes before this were dropped)\n" + "a" * (hooks.OUTPUT - 3) + "bc\ufffd"
    )
