"""A power cut at any moment: nothing acknowledged is lost, nothing kept is done again.

A real run of the daemon is recorded (``runs``, ``tracing``): every write, sync and name in its
state directory, by all of its processes, and every word to its clients. From that, the states in
which the disk could be after a cut at any point are built (``disk`` says what a cut can do), and
opened by a new master: thousands by its parts in this process (``opening``), some by a daemon.

    TASKD_POWER_CUTS=all         every cut in every variant (some minutes); or a number of states
    TASKD_POWER_CUT_SEED=17      another choice of states; the run itself is never the same twice
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import again
import cuts
import opening
import pytest
import runs
import tracing
from disk import Kept
from runs import Run

from taskd.slot.layout import BLOCK

CUTS = os.environ.get("TASKD_POWER_CUTS", "1000")
SEED = int(os.environ.get("TASKD_POWER_CUT_SEED", "1"))

SHOWN = 20
"""States that a failed test tells of."""


def _need(missing: str | None) -> None:
    """Skip where something is missing; where all must be tested, that is a failure."""
    if missing is not None and os.environ.get("TASKD_SYSTEM_TESTS") == "1":
        pytest.fail(missing)
    if missing is not None:
        pytest.skip(missing)


@pytest.fixture(scope="module")
def run(compiled: None) -> Iterator[Run]:
    _need(tracing.why_not())
    daemon = runs.traced()
    try:
        yield runs.record(daemon)
    except BaseException:
        print(daemon.log())
        raise
    finally:
        daemon.clean_up()


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[str]:
    """A directory in memory, if there is one: what is read there has survived its cut already."""
    if not os.path.isdir("/dev/shm"):
        yield str(tmp_path)
        return
    with tempfile.TemporaryDirectory(prefix="taskd-cut-", dir="/dev/shm") as path:
        yield path


@pytest.mark.timeout(1800 if CUTS == "all" else 300)
def test_no_power_cut_loses_doubles_or_falsifies_anything(run: Run, workspace: str) -> None:
    judge = opening.Judge(run, opening.App(), workspace)
    wrong, count = [], 0
    for cut, variant, left in cuts.states(
        run.recording, SEED, None if CUTS == "all" else int(CUTS)
    ):
        count += 1
        try:
            judge.judge(cut, left)
        except opening.Found as found:
            wrong.append(f"line {cut} of the trace, {variant}: {found}")
    assert not wrong, f"{len(wrong)} of {count} states (seed {SEED}): " + "\n".join(wrong[:SHOWN])
    print(f"{count} states after {len(run.recording.cuts())} writes, syncs and names")
    assert count > 500


REAL = 3 * cuts.VARIANTS
"""The variants of the states that a real daemon is started on, at moments spread over the run."""


@pytest.mark.parametrize("number", range(len(REAL)))
def test_a_daemon_started_after_a_power_cut_brings_every_task_to_its_end(
    run: Run, number: int
) -> None:
    _need(again.why_not())
    lines = run.recording.cuts()
    wanted = lines[len(lines) * (number + 1) // (len(REAL) + 1)]
    choice = cuts.choice(REAL[number], wanted, SEED)
    left = next(disk.left(choice) for line, disk in run.recording.play() if line == wanted)
    daemon = again.Restarted(run, left)
    try:
        daemon.start()
        daemon.check(wanted)
        daemon.end()
    except BaseException:
        print(daemon.log())
        raise
    finally:
        daemon.clean_up()


def test_what_was_synced_and_is_broken_is_held_and_not_taken_for_lost_in_the_cut(
    run: Run, workspace: str
) -> None:
    """The disk did not keep what it said it had: that must be seen, not passed over."""
    judge = opening.Judge(run, opening.App(), workspace)
    later = next(e for e in run.recording.effects if (e.task, e.item) == (run.tasks[2], "item:80"))
    name = os.path.relpath(run.recording.slots[later.pid], run.recording.root)
    cut = next(line for line in run.recording.cuts() if line > later.when)
    left = next(disk.left(Kept()) for line, disk in run.recording.play() if line == cut)
    raw = left[name]
    assert raw is not None and len(raw) > BLOCK + 500
    judge.judge(cut, left)
    for place in range(BLOCK, BLOCK + 500, 100):
        flipped = bytearray(raw)
        flipped[place] ^= 1
        with pytest.raises(opening.Found, match="its slot is damaged"):
            judge.judge(cut, left | {name: bytes(flipped)})
