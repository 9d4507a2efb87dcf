"""A migrated attempt, killed at every byte it writes: what was saved before stands until it saves.

The records go into a real slot. After each of them, and at each place in the middle of one, the
file is read as the master reads a dead worker's slot.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from slot_samples import memory_file, new_slot

from taskd import Context, SavedState
from taskd.posix import files
from taskd.protocol import data
from taskd.protocol.saved import Kind, Mark, Outcome, Saved
from taskd.slot import layout, reader
from taskd.slot.writer import SlotWriter
from taskd.tasks import Task, make_task
from taskd.worker.attempt import Ending, run_attempt
from taskd.worker.channel import Channel
from taskd.worker.control import Control, Order
from taskd.worker.process import _record
from taskd.worker.slot_recorder import SlotRecorder

ARGS = {"path": "a", "count": 5}


def rows(cursor: int | None, count: int) -> Iterator[tuple[int, int]]:
    for number in range(cursor or 0, count):
        yield number + 1, number


def job(ctx: Context, path: str, count: int, region: str) -> list[Any]:
    ctx.step("total", lambda: count)
    for row in ctx.each("rows", rows, count):
        ctx.state["seen"] = [*ctx.state.get("seen", []), row]
    return [region, ctx.state["seen"]]


def to_2(saved: SavedState) -> None:
    saved.args["region"] = "eu"
    saved.rename("lines", "rows")
    saved.state["seen"] = saved.state.pop("done", [])


def task_at_2() -> Task[..., Any]:
    made = make_task(job, name="job", version=2)
    made.migrate(1)(to_2)
    return made


def by_version_1() -> Saved:
    """Its first step and two of its items are done."""
    saved = Saved(1)
    saved.steps = {"total": 5}
    saved.cursors = {"lines": Mark(2, 2)}
    saved.state = {"done": [0, 1]}
    return saved


MIGRATED = Saved(2)
MIGRATED.args = ARGS | {"region": "eu"}
MIGRATED.steps = {"total": 5}
MIGRATED.cursors = {"rows": Mark(2, 2, moved=True)}
MIGRATED.state = {"seen": [0, 1]}


class Watched(SlotRecorder):
    """Keeps a copy of the slot after each record; asks to leave once ``leave_after`` are there."""

    def __init__(self, control: Control, slot: SlotWriter, leave_after: int) -> None:
        order = Order(7, 2, "job", b"", None, "", "", 0.0, 1)
        super().__init__(control, slot, order, "r2")
        self.slot, self.control, self.order = slot, control, order
        self.copies: list[tuple[str, bytes]] = []
        self._leave_after = leave_after

    def copy(self, what: str) -> None:
        self.copies.append((what, os.pread(self.slot.fd, os.fstat(self.slot.fd).st_size, 0)))
        if len(self.copies) == self._leave_after + 1:
            self.control._obey({"type": "leave", "task": 7, "attempt": 2, "why": "deploy"})

    def append(self, kind: Kind, fields: dict[str, Any], durable: bool = False) -> None:
        super().append(kind, fields, durable)
        self.copy(kind.name)

    def snapshot(self, saved: bytes) -> None:
        super().snapshot(saved)
        self.copy("SNAPSHOT")


@pytest.fixture
def control() -> Iterator[Control]:
    """Of a worker whose master listens and says nothing."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        made = Control(Channel(ours), None)  # type: ignore[arg-type]  # the thread is not started
        made._current = (7, 2)
        yield made
        os.close(made._wake)


@pytest.fixture
def no_holes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Space is given back only once a snapshot is on disk whole: what is cut off has no hole."""
    monkeypatch.setattr(files, "punch", lambda *_: False)


def run(
    directory: Path, control: Control, saved: Saved | None, leave_after: int = 100
) -> tuple[Ending, list[tuple[str, bytes]], bytes]:
    """One attempt up to its END: how it ended, the copies, and the slot with END."""
    with new_slot(str(directory)) as slot:
        recorder = Watched(control, slot, leave_after)
        begun = {"task": 7, "attempt": 2, "name": "job", "version": 2, "at": 0.0}
        slot.append(Kind.BEGIN, begun)
        recorder.copy("BEGIN")
        ending = run_attempt(task_at_2(), ARGS, saved, recorder, submitted_at=1)
        _record(slot, recorder, recorder.order, ending, 1.0)
        return ending, recorder.copies, os.pread(slot.fd, os.fstat(slot.fd).st_size, 0)


def after_death(slot: bytes, stored: Saved | None) -> Saved | None:
    """What the master has for the task once it has read that slot of a dead worker."""
    fd = memory_file(slot)
    try:
        content = reader.read(fd)
    finally:
        os.close(fd)
    assert content.damage is None
    assert content.begin is not None
    if content.end is not None:
        is_kept = content.end.get("snapshot") is not None
        return Saved.decode(content.snapshot) if is_kept and content.snapshot else stored
    if content.saves == 0:
        return stored
    kept = Saved(content.begin["version"]) if stored is None else Saved.decode(stored.encode())
    if content.snapshot is not None:
        kept = Saved.decode(content.snapshot)
    for record in content.records:
        kept.apply(record.kind, record.fields)
    return kept


def go_on(saved: Saved | None) -> Any:
    """What the task comes to from there, on the new code."""
    from taskd.worker.memory_recorder import MemoryRecorder

    own = None if saved is None else Saved.decode(saved.encode())
    ending = run_attempt(task_at_2(), ARGS, own, MemoryRecorder(), submitted_at=1)
    assert ending.result is not None, ending
    return data.decode(ending.result)


# ── the order of records ─────────────────────────────────────────────────────────────────────────


def test_nothing_is_written_at_load_and_the_migrated_state_before_the_first_save(
    tmp_path: Path, control: Control
) -> None:
    ending, copies, _ = run(tmp_path, control, by_version_1())
    assert ending.outcome is Outcome.SUCCEEDED
    assert [what for what, _ in copies] == ["BEGIN", "SNAPSHOT", "LOOP", "LOOP", "LOOP", "LOOP"]
    fd = memory_file(copies[1][1])
    content = reader.read(fd)
    os.close(fd)
    assert content.snapshot is not None
    assert Saved.decode(content.snapshot) == MIGRATED
    assert (content.saves, content.records) == (0, [])


def test_killed_before_its_first_save_what_version_1_saved_stands(
    tmp_path: Path, control: Control, no_holes: None
) -> None:
    _, copies, _ = run(tmp_path, control, by_version_1())
    begin, saved = copies[0][1], copies[2][1]
    for cut in range(len(begin), len(saved)):  # in the snapshot, right after it, in the save
        assert after_death(saved[:cut], by_version_1()) == by_version_1()


def test_killed_after_its_first_save_it_goes_on_from_all_that_is_migrated(
    tmp_path: Path, control: Control
) -> None:
    _, copies, _ = run(tmp_path, control, by_version_1())
    expected = Saved.decode(MIGRATED.encode())
    expected.cursors = {"rows": Mark(3, 3)}
    expected.state = {"seen": [0, 1, 2]}
    assert after_death(copies[2][1], by_version_1()) == expected


def test_killed_anywhere_the_task_comes_to_the_same_end(
    tmp_path: Path, control: Control, no_holes: None
) -> None:
    _, copies, _ = run(tmp_path, control, by_version_1())
    slot = copies[-1][1]
    for cut in range(len(copies[0][1]), len(slot) + 1, 7):
        assert go_on(after_death(slot[:cut], by_version_1())) == ["eu", [0, 1, 2, 3, 4]]


def test_where_nothing_was_saved_the_migrated_arguments_are_kept_with_the_first_save(
    tmp_path: Path, control: Control
) -> None:
    _, copies, _ = run(tmp_path, control, None)
    assert [what for what, _ in copies][:3] == ["BEGIN", "SNAPSHOT", "STEP"]
    assert after_death(copies[1][1], None) is None
    kept = after_death(copies[2][1], None)
    assert kept is not None
    assert (kept.version, kept.args, kept.steps) == (2, MIGRATED.args, {"total": 5})


def test_state_that_is_empty_but_of_another_version_is_not_added_up_onto(
    tmp_path: Path, control: Control
) -> None:
    """Else what the new code saves would count as saved by the old."""
    _, copies, _ = run(tmp_path, control, Saved(1))
    kept = after_death(copies[2][1], Saved(1))
    assert kept is not None
    assert kept.version == 2


# ── the end ──────────────────────────────────────────────────────────────────────────────────────


def end_of(slot: bytes) -> dict[str, Any]:
    fd = memory_file(slot)
    try:
        end = reader.read(fd).end
    finally:
        os.close(fd)
    assert end is not None
    return end


def test_an_end_without_progress_names_the_version_of_what_stands(
    tmp_path: Path, control: Control
) -> None:
    """Asked to leave before it saved: step "total" is kept already, the loop's items are not."""

    def asks(ctx: Context, **_: Any) -> None:
        control._obey({"type": "leave", "task": 7, "attempt": 2, "why": "deploy"})
        ctx.checkpoint()

    made = make_task(asks, name="job", version=2)
    made.migrate(1)(lambda saved: saved.args.update(region="eu"))
    with new_slot(str(tmp_path)) as slot:
        recorder = Watched(control, slot, 100)
        slot.append(Kind.BEGIN, {"task": 7, "attempt": 2, "name": "job", "version": 2, "at": 0.0})
        ending = run_attempt(made, ARGS, by_version_1(), recorder)
        _record(slot, recorder, recorder.order, ending, 1.0)
        raw = os.pread(slot.fd, os.fstat(slot.fd).st_size, 0)
    assert ending.saved == by_version_1()
    end = end_of(raw)
    assert (end["outcome"], end["progressed"], end["version"]) == ("left", False, 1)
    assert "snapshot" not in end
    assert "unfit" not in end
    assert after_death(raw, by_version_1()) == by_version_1()
    assert recorder.copies == []


def test_an_end_after_progress_keeps_the_migrated_state_under_the_new_version(
    tmp_path: Path, control: Control
) -> None:
    ending, _, slot = run(tmp_path, control, by_version_1(), leave_after=2)
    end = end_of(slot)
    assert (end["outcome"], end["progressed"], end["version"]) == ("left", True, 2)
    assert ending.saved.args == MIGRATED.args
    assert after_death(slot, by_version_1()) == ending.saved
    assert go_on(ending.saved) == ["eu", [0, 1, 2, 3, 4]]


def test_code_that_cannot_take_the_state_says_so_in_its_end_and_writes_nothing_else(
    tmp_path: Path, control: Control
) -> None:
    newer = Saved(3)
    newer.state = {"a": 1}
    ending, copies, slot = run(tmp_path, control, newer)
    assert [what for what, _ in copies] == ["BEGIN"]
    assert (ending.outcome, ending.unfit) == (Outcome.HELD, True)
    end = end_of(slot)
    assert (end["outcome"], end["unfit"], end["progressed"]) == ("held", True, False)
    assert end["version"] == 3
    assert "saved by version 3, this code is version 2" in end["reason"]
    assert after_death(slot, newer) == newer


def test_a_snapshot_takes_the_place_of_all_before_it_also_in_a_slot_that_grew(
    tmp_path: Path, control: Control
) -> None:
    """The first one stands at a block boundary like any other, with the attempt's BEGIN in it."""
    _, copies, _ = run(tmp_path, control, by_version_1())
    slot = bytearray(copies[2][1])
    slot[layout.BLOCK : 2 * layout.BLOCK] = bytes(layout.BLOCK)  # given back by a hole
    assert after_death(bytes(slot), by_version_1()) == after_death(copies[2][1], by_version_1())
