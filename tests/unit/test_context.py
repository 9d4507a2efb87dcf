"""What a sync task can do with its context."""

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
from taskd import Context, Interrupted, NotPlainData
from taskd.protocol import data
from taskd.protocol.saved import Kind, Mark, Outcome, Saved
from taskd.worker.memory import MemoryKeeper


def kinds(keeper: MemoryKeeper) -> list[Kind]:
    return [record.kind for record in keeper.records]


# ── steps ────────────────────────────────────────────────────────────────────────────────────────


def test_a_step_is_durable_before_its_result_is_returned() -> None:
    keeper = MemoryKeeper()
    seen: list[list[bool]] = []

    def job(ctx: Context) -> int:
        value = ctx.step("count", lambda: 5)
        seen.append([record.durable for record in keeper.records])
        return value

    assert result(attempt(job, keeper=keeper)) == 5
    assert seen == [[True]]


def test_what_a_step_returns_is_what_was_read_back_the_first_time_too() -> None:
    original = [1, (2, 3)]

    def job(ctx: Context) -> bool:
        first = ctx.step("a", lambda: original)
        first.append("changed by the task")
        return first is not original and type(first[1]) is tuple

    ending = attempt(job)
    assert result(ending) is True
    assert original == [1, (2, 3)]
    assert ending.saved.steps == {"a": [1, (2, 3)]}


def test_a_kept_step_is_not_run_again_and_its_result_may_be_changed() -> None:
    saved = Saved(1)
    saved.steps["a"] = [1]

    def job(ctx: Context) -> list[int]:
        ctx.step("a", pytest.fail).append(2)
        return ctx.step("b", list)

    ending = attempt(job, saved=saved)
    assert result(ending) == []
    assert ending.saved.steps == {"a": [1], "b": []}


def test_a_step_passes_its_arguments_on_whatever_they_are_called() -> None:
    def job(ctx: Context) -> dict[str, int]:
        return ctx.step("a", dict, name=1, fn=2, self=3)

    assert outcome(job) == {"name": 1, "fn": 2, "self": 3}


def test_a_step_within_a_step_is_an_error() -> None:
    def job(ctx: Context) -> None:
        ctx.step("outer", lambda: ctx.step("inner", int))

    with pytest.raises(RuntimeError, match="step 'inner' within step 'outer'"):
        outcome(job)


@pytest.mark.parametrize(
    "inner",
    [
        lambda ctx: ctx.each("rows", [1]),
        lambda ctx: ctx.checkpoint(),
        lambda ctx: ctx.sleep(1, "nap"),
    ],
)
def test_nothing_else_that_saves_may_be_within_a_step(inner: Any) -> None:
    def job(ctx: Context) -> None:
        ctx.step("outer", inner, ctx)

    with pytest.raises(RuntimeError, match="within step 'outer'"):
        outcome(job)


def test_a_step_that_raised_may_be_tried_again_under_its_name() -> None:
    tries: list[int] = []

    def flaky() -> int:
        tries.append(1)
        if len(tries) < 3:
            raise OSError("not yet")
        return len(tries)

    def job(ctx: Context) -> int:
        while True:
            try:
                return ctx.step("fetch", flaky)
            except OSError:
                continue

    assert outcome(job) == 3


def test_the_same_name_twice_is_an_error_also_when_the_first_was_kept() -> None:
    saved = Saved(1)
    saved.steps["a"] = 1

    def job(ctx: Context) -> None:
        ctx.step("a", int)
        ctx.step("a", int)

    for start in (None, saved):
        with pytest.raises(RuntimeError, match="step 'a': that name is used twice"):
            outcome(job, saved=start)


def test_the_result_of_a_call_instead_of_a_function_is_told() -> None:
    def job(ctx: Context) -> None:
        ctx.step("count", len([1]))  # type: ignore[arg-type]

    with pytest.raises(TypeError, match="pass the function and its arguments apart"):
        outcome(job)


def test_an_async_function_in_a_sync_task_is_told() -> None:
    async def fetch() -> int:
        return 1

    def job(ctx: Context) -> None:
        ctx.step("fetch", fetch)

    with pytest.raises(TypeError, match="make the task's function async def"):
        outcome(job)


def test_a_result_that_cannot_be_kept_is_told_by_the_steps_name() -> None:
    for value, says in ((object(), "step 'a'"), (b"x" * (data.RESULT_LIMIT + 1), "limit")):
        with pytest.raises(NotPlainData, match=says):
            outcome(lambda ctx, value=value: ctx.step("a", lambda: value), name="job")


# ── loops ────────────────────────────────────────────────────────────────────────────────────────


def rows(cursor: int | None, count: int = 5) -> Iterator[tuple[int, str]]:
    for number in range(cursor or 0, count):
        yield number + 1, f"row {number}"


def test_a_loop_goes_on_where_the_last_attempt_was() -> None:
    seen: list[str] = []

    def job(ctx: Context) -> None:
        for row in ctx.each("rows", rows, 4):
            seen.append(row)

    saved = Saved(1)
    saved.cursors["rows"] = Mark(2, 2)
    ending = attempt(job, saved=saved)
    assert ending.outcome is Outcome.SUCCEEDED
    assert seen == ["row 2", "row 3"]
    assert ending.saved.cursors["rows"] == Mark(None, 4, finished=True)


def test_asking_for_the_next_item_saves_the_cursor_and_the_state_together() -> None:
    keeper = MemoryKeeper()

    def job(ctx: Context) -> None:
        for row in ctx.each("rows", rows):
            ctx.state["last"] = row
            if row == "row 2":
                break

    attempt(job, keeper=keeper)
    assert kinds(keeper) == [Kind.LOOP, Kind.LOOP]
    saved = keeper.rebuild(None)
    assert saved.cursors["rows"].cursor == 2
    assert saved.state == {"last": "row 1"}


def test_a_finished_loop_is_not_entered_again_and_its_source_is_not_called() -> None:
    def source(cursor: Any) -> Iterator[tuple[int, int]]:
        raise AssertionError("called")

    def job(ctx: Context) -> list[Any]:
        return [*ctx.each("a", source), *ctx.each("b", [1, 2])]

    saved = Saved(1)
    saved.cursors = {"a": Mark(None, 3, finished=True), "b": Mark(2, 2, 2, 2, None, True)}
    assert outcome(job, saved=saved) == []


def test_an_empty_loop_is_recorded_as_finished() -> None:
    def job(ctx: Context) -> list[Any]:
        return [*ctx.each("a", lambda cursor: iter(())), *ctx.each("b", [])]

    ending = attempt(job)
    assert result(ending) == []
    assert all(mark.finished for mark in ending.saved.cursors.values())
    assert set(ending.saved.cursors) == {"a", "b"}


def test_break_does_not_save_its_item_and_later_steps_are_outside() -> None:
    def job(ctx: Context) -> None:
        for row in ctx.each("rows", rows):
            ctx.step("inner", str, row)
            if row == "row 1":
                break
        ctx.step("after", int)

    ending = attempt(job)
    assert ending.saved.cursors["rows"].cursor == 1
    assert set(ending.saved.steps) == {"rows/inner", "after"}


def test_an_exception_leaves_the_loops_scope() -> None:
    def job(ctx: Context) -> None:
        try:
            for _outer in ctx.each("outer", [1, 2]):
                for row in ctx.each("rows", rows):
                    raise KeyError(row)
        except KeyError:
            ctx.step("after", int)

    assert set(attempt(job).saved.steps) == {"after"}


def test_a_loop_in_a_function_that_raised_has_ended_too() -> None:
    def inner(ctx: Context) -> None:
        for row in ctx.each("rows", rows):
            raise KeyError(row)

    def job(ctx: Context) -> None:
        with pytest.raises(KeyError):
            inner(ctx)
        ctx.step("after", int)

    assert set(attempt(job).saved.steps) == {"after"}


def test_an_iterator_that_is_held_can_be_closed() -> None:
    def job(ctx: Context) -> None:
        held = ctx.each("rows", rows)
        next(held)
        held.close()
        ctx.step("after", int)
        with pytest.raises(RuntimeError, match="cannot go on"):
            next(held)

    ending = attempt(job)
    assert result(ending) is None
    assert set(ending.saved.steps) == {"after"}


def test_a_loop_that_is_over_stays_over() -> None:
    def job(ctx: Context) -> list[Any]:
        held = ctx.each("rows", [1])
        return [list(held), list(held), list(held)]

    assert outcome(job) == [[1], [], []]


def test_steps_and_loops_in_a_body_belong_to_the_item() -> None:
    ran: list[str] = []

    def job(ctx: Context) -> None:
        for row in ctx.each("rows", rows, 3):
            ctx.step("parse", ran.append, row)
            for part in ctx.each("parts", [1, 2]):
                ctx.step("part", ran.append, f"{row}.{part}")

    ending = attempt(job)
    assert ran == [f"row {n}{more}" for n in range(3) for more in ("", ".1", ".2")]
    assert ending.saved.steps == {}
    assert set(ending.saved.cursors) == {"rows"}


def test_two_loops_in_step_are_told_to_be_one_source() -> None:
    def job(ctx: Context) -> None:
        for _ in zip(ctx.each("a", [1, 2, 3]), ctx.each("b", [1, 2, 3]), strict=True):
            pass

    with pytest.raises(RuntimeError, match="zip them in one source"):
        outcome(job)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ({"a": 1}, r"list\(the_dict.items\(\)\)"),
        ({1, 2}, "a sorted list"),
        ("text", "a list of what"),
        (b"bytes", "a list of what"),
        (iter([1]), "the generator function itself"),
        (rows(None), "the generator function itself"),
        (5, "a function that takes the last cursor"),
        (None, "None cannot be resumed"),
    ],
)
def test_what_cannot_be_resumed_is_refused_with_what_to_do(source: Any, says: str) -> None:
    with pytest.raises(TypeError, match=says):
        outcome(lambda ctx: ctx.each("rows", source), name="job")


@pytest.mark.parametrize(
    ("yielded", "says"),
    [
        ("row", "type str: it must yield pairs"),
        ((1, 2, 3), "a tuple of 3"),
        ([1, 2], "type list"),
        ((None, 2), "yielded None as the cursor"),
    ],
)
def test_a_source_that_does_not_yield_pairs_is_told(yielded: Any, says: str) -> None:
    def job(ctx: Context) -> None:
        for _ in ctx.each("rows", lambda cursor: iter([yielded])):
            pytest.fail("an item of what is no pair")

    with pytest.raises(TypeError, match=says):
        outcome(job)


def test_a_source_that_returns_no_iterable_is_told() -> None:
    async def later(cursor: Any) -> Any:
        yield 1, 1

    async def once(cursor: Any) -> None: ...

    for source, says in ((int, "type int"), (later, "async"), (once, "async")):
        with pytest.raises(TypeError, match=says):
            outcome(
                lambda ctx, source=source: list(ctx.each("rows", lambda c: source(c or 0))),
                name="job",
            )


def test_arguments_beside_a_sequence_are_refused() -> None:
    with pytest.raises(TypeError, match="no further arguments"):
        outcome(lambda ctx: ctx.each("rows", [1], "path"), name="job")


def test_a_source_that_raised_leaves_its_loop_unfinished() -> None:
    def source(cursor: int | None) -> Iterator[tuple[int, int]]:
        yield 1, 1
        raise OSError("the database is away")

    def job(ctx: Context) -> None:
        held = ctx.each("rows", source)
        next(held)
        with pytest.raises(OSError):
            next(held)
        with pytest.raises(RuntimeError):
            next(held)

    ending = attempt(job)
    assert result(ending) is None
    assert ending.saved.cursors == {"rows": Mark(1, 1)}


def test_the_context_may_not_be_used_by_a_source() -> None:
    def job(ctx: Context) -> None:
        def source(cursor: Any) -> Iterator[tuple[int, int]]:
            ctx.step("x", int)
            yield 1, 1

        for _ in ctx.each("rows", source):
            pass

    with pytest.raises(RuntimeError, match="step 'x' within the source of loop 'rows'"):
        outcome(job)


def test_a_cursor_that_is_too_large_or_not_plain_is_told_before_the_body_runs() -> None:
    for cursor in (b"x" * (data.CURSOR_LIMIT + 1), object()):

        def job(ctx: Context, cursor: Any = cursor) -> None:
            for _ in ctx.each("rows", lambda last: iter([(cursor, 1)])):
                pytest.fail("the body ran")

        with pytest.raises(NotPlainData, match="the cursor of loop 'rows'"):
            outcome(job)


@pytest.mark.parametrize(
    ("now", "says"),
    [
        (["a", "b"], "it had 3 items when its progress was saved and now has 2"),
        (["a", "B", "c"], "the item at index 1"),
        (rows, "saved with a sequence as its source and now has a function"),
    ],
)
def test_a_changed_sequence_holds_the_task(now: Any, says: str) -> None:
    current: list[Any] = [["a", "b", "c"]]

    def job(ctx: Context) -> None:
        for item in ctx.each("rows", current[0]):
            if item == "b":
                raise KeyError

    part = attempt(job)
    assert part.saved.cursors["rows"].cursor == 1
    current[0] = now
    ending = attempt(job, saved=part.saved)
    assert ending.outcome is Outcome.HELD
    assert ending.reason is not None
    assert says in ending.reason
    assert "Deploy code that fits" in ending.reason
    assert ending.saved == part.saved


def test_a_sequence_may_follow_neither_a_function() -> None:
    saved = Saved(1)
    saved.cursors["rows"] = Mark(2, 2)
    ending = attempt(lambda ctx: list(ctx.each("rows", [1, 2, 3])), saved=saved, name="job")
    assert ending.outcome is Outcome.HELD
    assert "now has a sequence" in str(ending.reason)


def test_a_hold_stands_also_if_the_task_swallows_it() -> None:
    saved = Saved(1)
    saved.cursors["rows"] = Mark(2, 2)

    def job(ctx: Context) -> str:
        try:
            return str(list(ctx.each("rows", [1, 2, 3])))
        except BaseException:
            return "all is well"

    assert attempt(job, saved=saved).outcome is Outcome.HELD


def test_a_sequence_that_changes_under_its_loop_is_an_error() -> None:
    def job(ctx: Context) -> None:
        numbers = [1, 2]
        for number in ctx.each("rows", numbers):
            numbers.append(number)

    with pytest.raises(RuntimeError, match="must not change while the loop runs"):
        outcome(job)


def test_a_sequence_whose_next_item_raises_has_saved_the_one_before() -> None:
    class Remote(list[int]):
        def __getitem__(self, index: Any) -> Any:
            if index == 1:
                raise OSError("gone")
            return index

    def job(ctx: Context) -> None:
        for _ in ctx.each("rows", Remote([1, 2])):
            pass

    ending = attempt(job)
    assert isinstance(ending.exception, OSError)
    assert ending.saved.cursors["rows"] == Mark(1, 1, 2, 2, None)


def test_a_range_and_a_tuple_are_sequences() -> None:
    def job(ctx: Context) -> list[int]:
        return [*ctx.each("a", range(3)), *ctx.each("b", (5, 6))]

    assert outcome(job) == [0, 1, 2, 5, 6]


def test_the_cursor_a_source_gets_is_its_own_to_change() -> None:
    def source(cursor: dict[str, int] | None) -> Iterator[tuple[dict[str, int], int]]:
        at = cursor or {"n": 0}
        while at["n"] < 3:
            at["n"] += 1
            yield at, at["n"]

    saved = Saved(1)
    saved.cursors["rows"] = Mark({"n": 1}, 1)

    def job(ctx: Context) -> None:
        for item in ctx.each("rows", source):
            if item == 2:
                raise KeyError

    assert attempt(job, saved=saved).saved.cursors["rows"].cursor == {"n": 1}


# ── state, checkpoint, progress ──────────────────────────────────────────────────────────────────


def test_state_is_restored_and_saved_by_a_checkpoint() -> None:
    def job(ctx: Context) -> int:
        ctx.state["n"] = ctx.state.get("n", 0) + 1
        ctx.checkpoint()
        return ctx.state["n"]  # type: ignore[no-any-return]

    first = attempt(job)
    assert (result(first), first.saved.state) == (1, {"n": 1})
    assert result(attempt(job, saved=first.saved)) == 2


def test_state_that_is_not_plain_data_is_told_where_it_is_saved() -> None:
    def job(ctx: Context) -> None:
        ctx.state["x"] = object()
        ctx.checkpoint()

    with pytest.raises(NotPlainData, match=r"ctx\.state"):
        outcome(job)


def test_the_outermost_loop_reports_progress_and_inner_ones_their_part() -> None:
    keeper = MemoryKeeper()

    def job(ctx: Context) -> None:
        for _ in ctx.each("files", ["a", "b"]):
            for _ in ctx.each("rows", rows, 1, total=1):
                pass

    attempt(job, keeper=keeper)
    assert keeper.reports[0] == (0, 2, "")
    assert (0, 2, "rows 1/1") in keeper.reports
    assert (1, 2, "") in keeper.reports
    assert keeper.reports[-1] == (2, 2, "")


def test_a_total_is_passed_on_and_checked() -> None:
    keeper = MemoryKeeper()
    attempt(lambda ctx: list(ctx.each("rows", rows, total=5)), keeper=keeper, name="job")
    assert keeper.reports[-1] == (5, 5, "")
    for wrong in (-1, 2.5, "5", True):
        with pytest.raises(TypeError, match="total must be a whole number"):
            outcome(lambda ctx, wrong=wrong: ctx.each("rows", rows, total=wrong), name="job")


def test_the_tasks_own_progress_goes_before_that_of_its_loops() -> None:
    keeper = MemoryKeeper()

    def job(ctx: Context) -> None:
        ctx.progress(1, 100, "reading \ud800" + "x" * 1000)
        for _ in ctx.each("rows", [1, 2]):
            pass

    attempt(job, keeper=keeper)
    ((done, total, note),) = keeper.reports
    assert (done, total) == (1, 100)
    assert note.startswith("reading \\ud800xxx")
    assert len(note) < 600


# ── sleeping ─────────────────────────────────────────────────────────────────────────────────────


def test_a_named_sleep_keeps_its_time_frees_the_worker_and_goes_on_after_it() -> None:
    keeper = MemoryKeeper(now=1000.0)

    def job(ctx: Context) -> str:
        ctx.sleep(3600, "pause")
        return "awake"

    first = attempt(job, keeper=keeper)
    assert (first.outcome, first.wake, first.progressed) == (Outcome.SLEEPING, 4600.0, True)
    assert [record.durable for record in keeper.records] == [True]
    early = attempt(job, keeper=MemoryKeeper(now=2000.0), saved=first.saved)
    assert (early.outcome, early.wake, early.progressed) == (Outcome.SLEEPING, 4600.0, False)
    assert result(attempt(job, keeper=MemoryKeeper(now=4600.0), saved=first.saved)) == "awake"


def test_the_last_second_of_a_named_sleep_is_waited_for() -> None:
    saved = Saved(1)
    saved.steps["pause"] = 1001.0
    keeper = MemoryKeeper(now=1000.5)
    assert outcome(lambda ctx: ctx.sleep(9, "pause"), keeper=keeper, saved=saved, name="j") is None
    assert keeper.now == 1001.0


def test_other_sleeps_just_wait() -> None:
    keeper = MemoryKeeper(now=0.0)

    def job(ctx: Context) -> None:
        ctx.sleep(100)
        for _ in ctx.each("rows", [1, 2]):
            ctx.sleep(100, "nap")

    ending = attempt(job, keeper=keeper)
    assert ending.outcome is Outcome.SUCCEEDED
    assert keeper.now == 300.0
    assert ending.saved.steps == {}


def test_a_sleep_ends_at_once_when_the_task_is_asked_to_leave() -> None:
    for name in (None, "nap"):
        keeper = MemoryKeeper(now=0.0)
        keeper.ask()
        ending = attempt(lambda ctx, n=name: ctx.sleep(100, n), keeper=keeper, name="job")
        assert ending.outcome is Outcome.LEFT
        assert keeper.now == 0.0


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), "5", None, True])
def test_a_time_to_sleep_that_is_none_is_refused(seconds: Any) -> None:
    with pytest.raises(ValueError, match="number of seconds"):
        outcome(lambda ctx: ctx.sleep(seconds), name="job")


# ── leaving ──────────────────────────────────────────────────────────────────────────────────────


def test_a_wish_is_met_after_the_item_is_saved() -> None:
    keeper = MemoryKeeper()
    done: list[str] = []

    def job(ctx: Context) -> None:
        for row in ctx.each("rows", rows):
            if row == "row 1":
                keeper.ask("leave", "a deploy")
                assert ctx.stopping
            done.append(row)

    ending = attempt(job, keeper=keeper)
    assert (ending.outcome, ending.reason) == (Outcome.LEFT, "a deploy")
    assert done == ["row 0", "row 1"]
    assert keeper.rebuild(None).cursors["rows"].cursor == 2


def test_a_wish_is_met_before_a_step_starts_and_at_a_checkpoint() -> None:
    for leave in (lambda ctx: ctx.step("a", pytest.fail), lambda ctx: ctx.checkpoint()):
        keeper = MemoryKeeper()
        keeper.ask("cancel", "by root")
        ending = attempt(leave, keeper=keeper, name="job")
        assert (ending.outcome, ending.reason) == (Outcome.CANCELLED, "by root")


def test_leaving_runs_finally_is_not_swallowed_by_except_exception_and_is_told_again() -> None:
    keeper = MemoryKeeper()
    keeper.ask()
    order: list[str] = []

    def job(ctx: Context) -> None:
        try:
            try:
                ctx.checkpoint()
            except Exception:
                order.append("swallowed")
        finally:
            for again in (
                lambda: ctx.step("cleanup", int),
                lambda: ctx.each("rows", [1]),
                ctx.checkpoint,
                lambda: ctx.sleep(0),
            ):
                with pytest.raises(Interrupted):
                    again()
                order.append("told again")

    assert attempt(job, keeper=keeper).outcome is Outcome.LEFT
    assert order == ["told again"] * 4


def test_a_task_that_swallows_the_interrupt_and_returns_has_succeeded() -> None:
    keeper = MemoryKeeper()
    keeper.ask()

    def job(ctx: Context) -> str:
        try:
            ctx.checkpoint()
        except Interrupted:
            return "done all the same"
        return "not asked"

    assert result(attempt(job, keeper=keeper)) == "done all the same"


def test_a_disk_that_stays_full_is_left_without_a_half_saved_move() -> None:
    def full(kind: Kind, fields: dict[str, Any]) -> None:
        keeper.ask("leave", "a stop")
        raise Interrupted("cannot save: disk full")

    keeper = MemoryKeeper(before=full)

    def job(ctx: Context) -> None:
        ctx.step("a", int)

    ending = attempt(job, keeper=keeper)
    assert (ending.outcome, ending.progressed) == (Outcome.LEFT, False)
    assert ending.saved.empty


def test_an_interrupt_that_the_task_raised_by_itself_is_its_failure() -> None:
    def job() -> None:
        raise Interrupted("just so")

    ending = attempt(job)
    assert ending.outcome is Outcome.FAILED
    assert ending.error is not None
    assert ending.error["type"] == "Interrupted"


def test_a_snapshot_is_written_when_it_is_wanted_and_says_the_same() -> None:
    keeper = MemoryKeeper(snapshot_every=3)

    def job(ctx: Context) -> None:
        ctx.step("count", int)
        for row in ctx.each("rows", rows, 20):
            ctx.state["last"] = row

    ending = attempt(job, keeper=keeper)
    assert kinds(keeper).count(Kind.SNAPSHOT) > 3
    assert keeper.rebuild(None) == ending.saved


# ── where it may be used ─────────────────────────────────────────────────────────────────────────


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

    keeper = MemoryKeeper()
    assert outcome(job, keeper=keeper) == 7
    assert keeper.records == []


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
    keeper = MemoryKeeper(scratch=str(tmp_path / "17"), attempt=3)

    def job(ctx: Context) -> list[Any]:
        (ctx.scratch / "file").write_text("kept")
        return [ctx.id, ctx.attempt, ctx.revision]

    assert outcome(job, keeper=keeper) == ["1", 3, "test"]
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
