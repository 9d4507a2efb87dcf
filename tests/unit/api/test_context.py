"""State, progress, sleeping, and where and when the context may be used."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from attempts import attempt, outcome, result

import taskd
from taskd import Context, NotPlainData
from taskd.protocol.saved import Outcome, Saved
from taskd.worker.memory_recorder import MemoryRecorder


def rows(cursor: int | None, count: int = 5) -> Iterator[tuple[int, str]]:
    for number in range(cursor or 0, count):
        yield number + 1, f"row {number}"


def test_state_is_restored_and_saved_by_a_checkpoint() -> None:
    def job(ctx: Context) -> int:
        ctx.state["n"] = ctx.state.get("n", 0) + 1
        ctx.checkpoint()
        return ctx.state["n"]  # type: ignore[no-any-return]

    first = attempt(job)
    assert (result(first), first.saved.state) == (1, {"n": 1})
    assert result(attempt(job, saved=first.saved)) == 2


WHOLE = "it is written whole with each item"


def filling(size: int, items: int) -> Any:
    def job(ctx: Context) -> None:
        for number in ctx.each("rows", range(items)):
            ctx.state["last"] = number
            ctx.state["seen"] = bytes(size)

    return job


def test_a_large_state_that_is_written_again_and_again_is_warned_of_once(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert attempt(filling(1024 * 1024, 100)).outcome is Outcome.SUCCEEDED
    told = capfd.readouterr().err
    assert told.count(WHOLE) == 1
    assert "WARNING ctx.state takes 1,048," in told


@pytest.mark.parametrize(("size", "items"), [(1024, 2000), (8 * 1024 * 1024, 10)])
def test_a_state_that_is_small_or_seldom_written_is_no_matter(
    capfd: pytest.CaptureFixture[str], size: int, items: int
) -> None:
    attempt(filling(size, items))
    assert WHOLE not in capfd.readouterr().err


def test_a_warning_does_not_end_a_task_whose_output_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stderr", None)
    assert attempt(filling(1024 * 1024, 100)).outcome is Outcome.SUCCEEDED


def test_state_that_is_not_plain_data_is_told_where_it_is_saved() -> None:
    def job(ctx: Context) -> None:
        ctx.state["x"] = object()
        ctx.checkpoint()

    with pytest.raises(NotPlainData, match=r"ctx\.state"):
        outcome(job)


def test_the_outermost_loop_reports_progress_and_inner_ones_their_part() -> None:
    recorder = MemoryRecorder()

    def job(ctx: Context) -> None:
        for _ in ctx.each("files", ["a", "b"]):
            for _ in ctx.each("rows", rows, 1, total=1):
                pass

    attempt(job, recorder=recorder)
    assert recorder.reports[0] == (0, 2, "")
    assert (0, 2, "rows 1/1") in recorder.reports
    assert (1, 2, "") in recorder.reports
    assert recorder.reports[-1] == (2, 2, "")


def test_a_total_is_passed_on_and_checked() -> None:
    recorder = MemoryRecorder()
    attempt(lambda ctx: list(ctx.each("rows", rows, total=5)), recorder=recorder, name="job")
    assert recorder.reports[-1] == (5, 5, "")
    for wrong in (-1, 2.5, "5", True):
        with pytest.raises(TypeError, match="total must be a whole number"):
            outcome(lambda ctx, wrong=wrong: ctx.each("rows", rows, total=wrong), name="job")


LARGEST = 2**63 - 1


def test_a_count_that_no_record_can_carry_is_a_type_error_in_the_task() -> None:
    most = MemoryRecorder()
    attempt(lambda ctx: ctx.progress(LARGEST, LARGEST), recorder=most, name="job")
    assert most.reports == [(LARGEST, LARGEST, "")]
    for counts in ((LARGEST + 1,), (1, LARGEST + 1), (2**70, 2**70)):
        with pytest.raises(TypeError, match=f"must be a whole number from 0 to {LARGEST}"):
            outcome(lambda ctx, counts=counts: ctx.progress(*counts), name="job")
    with pytest.raises(TypeError, match=f"total must be a whole number from 0 to {LARGEST}"):
        outcome(lambda ctx: list(ctx.each("rows", rows, total=LARGEST + 1)), name="job")


def test_the_tasks_own_progress_goes_before_that_of_its_loops() -> None:
    recorder = MemoryRecorder()

    def job(ctx: Context) -> None:
        ctx.progress(1, 100, "reading \ud800" + "x" * 1000)
        for _ in ctx.each("rows", [1, 2]):
            pass

    attempt(job, recorder=recorder)
    ((done, total, note),) = recorder.reports
    assert (done, total) == (1, 100)
    assert note.startswith("reading \\ud800xxx")
    assert len(note) < 600


def test_a_named_sleep_keeps_its_time_frees_the_worker_and_goes_on_after_it() -> None:
    recorder = MemoryRecorder(now=1000.0)

    def job(ctx: Context) -> str:
        ctx.sleep(3600, "pause")
        return "awake"

    first = attempt(job, recorder=recorder)
    assert (first.outcome, first.wake, first.progressed) == (Outcome.SLEEPING, 4600.0, True)
    assert [record.durable for record in recorder.records] == [True]
    early = attempt(job, recorder=MemoryRecorder(now=2000.0), saved=first.saved)
    assert (early.outcome, early.wake, early.progressed) == (Outcome.SLEEPING, 4600.0, False)
    assert result(attempt(job, recorder=MemoryRecorder(now=4600.0), saved=first.saved)) == "awake"


def test_the_last_second_of_a_named_sleep_is_waited_for() -> None:
    saved = Saved(1)
    saved.steps["pause"] = 1001.0
    recorder = MemoryRecorder(now=1000.5)
    assert (
        outcome(lambda ctx: ctx.sleep(9, "pause"), recorder=recorder, saved=saved, name="j") is None
    )
    assert recorder.now == 1001.0


def test_other_sleeps_just_wait() -> None:
    recorder = MemoryRecorder(now=0.0)

    def job(ctx: Context) -> None:
        ctx.sleep(100)
        for _ in ctx.each("rows", [1, 2]):
            ctx.sleep(100, "nap")

    ending = attempt(job, recorder=recorder)
    assert ending.outcome is Outcome.SUCCEEDED
    assert recorder.now == 300.0
    assert ending.saved.steps == {}


def test_a_sleep_ends_at_once_when_the_task_is_asked_to_leave() -> None:
    for name in (None, "nap"):
        recorder = MemoryRecorder(now=0.0)
        recorder.ask()
        ending = attempt(lambda ctx, n=name: ctx.sleep(100, n), recorder=recorder, name="job")
        assert ending.outcome is Outcome.LEFT
        assert recorder.now == 0.0


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), "5", None, True])
def test_a_time_to_sleep_that_is_none_is_refused(seconds: Any) -> None:
    with pytest.raises(ValueError, match="number of seconds"):
        outcome(lambda ctx: ctx.sleep(seconds), name="job")


def test_another_thread_may_not_save() -> None:
    def job(ctx: Context) -> list[str]:
        said: list[str] = []

        def use() -> None:
            for call in (
                lambda: ctx.step("a", int),
                lambda: ctx.each("b", [1]),
                ctx.checkpoint,
                lambda: ctx.sleep(0),
                lambda: ctx.progress(1),
            ):
                try:
                    call()
                except RuntimeError as error:
                    said.append(str(error))
            said.append(ctx.id + str(ctx.stopping))  # looking is allowed

        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
        return said

    *errors, looked = outcome(job)
    assert len(errors) == 5
    assert all("in another thread" in text for text in errors)
    assert looked == "1False"


def test_a_forked_child_may_not_save() -> None:
    def job(ctx: Context) -> int:
        child = os.fork()
        if child == 0:
            try:
                ctx.step("a", int)
            except RuntimeError as error:
                os._exit(7 if "in a forked child" in str(error) else 8)
            os._exit(9)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    recorder = MemoryRecorder()
    assert outcome(job, recorder=recorder) == 7
    assert recorder.records == []


def test_a_context_is_of_no_use_after_its_task() -> None:
    kept: list[Context] = []
    attempt(lambda ctx: kept.append(ctx), name="job")
    with pytest.raises(RuntimeError, match="after the end of the task"):
        kept[0].step("a", int)


def test_current_reaches_the_context_from_deeper_code() -> None:
    def deeper() -> str:
        return taskd.current().id

    assert outcome(lambda ctx: taskd.current() is ctx, name="job") is True
    assert outcome(lambda: deeper(), name="job") == "1"
    with pytest.raises(RuntimeError, match="no task runs"):
        taskd.current()


def test_facts_and_the_scratch_directory(tmp_path: Path) -> None:
    recorder = MemoryRecorder(scratch=str(tmp_path / "17"), attempt=3)

    def job(ctx: Context) -> list[Any]:
        (ctx.scratch / "file").write_text("kept")
        return [ctx.id, ctx.attempt, ctx.revision]

    assert outcome(job, recorder=recorder) == ["1", 3, "test"]
    assert (tmp_path / "17" / "file").read_text() == "kept"


def test_the_log_has_a_time_a_level_and_the_text(capfd: pytest.CaptureFixture[str]) -> None:
    def job(ctx: Context) -> None:
        ctx.log.info("read %s rows of %s", 5, "a.csv")
        ctx.log.warning("100 %")
        ctx.log.error("wrong %d", "number")
        try:
            raise KeyError("k")
        except KeyError:
            ctx.log.exception("failed")

    attempt(job)
    lines = capfd.readouterr().err.splitlines()
    stamp, level, text = lines[0].split(" ", 2)
    assert datetime.fromisoformat(stamp).tzinfo is not None
    assert (level, text) == ("INFO", "read 5 rows of a.csv")
    assert lines[1].endswith("WARNING 100 %")
    assert lines[2].endswith("ERROR wrong %d ('number',)")
    assert lines[3].endswith("ERROR failed")
    assert lines[-1] == "KeyError: 'k'"
