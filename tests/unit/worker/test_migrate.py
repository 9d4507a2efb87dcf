"""What a migration sees, what it may leave, and what an attempt begins with afterwards."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from forked import in_child

import taskd
from taskd import FINISHED, Context, SavedState
from taskd.protocol.saved import Mark, Saved
from taskd.tasks import Task, make_task
from taskd.worker.migrate import Unfit, fit

Migrate = Callable[[SavedState], Any]


def job(ctx: Context, path: str = "", region: str = "") -> None: ...


def task(*chain: Migrate | None, version: int | None = None, fn: Any = job) -> Task[..., Any]:
    """A task with these migrations, the first from version 1; None: that one is missing."""
    made = make_task(fn, name="job", version=len(chain) + 1 if version is None else version)
    for number, each in enumerate(chain, 1):
        if each is not None:
            made.migrate(number)(each)
    return made


def saved(version: int = 1, **kept: Any) -> Saved:
    made = Saved(version)
    for name, value in kept.items():
        setattr(made, name, value)
    return made


def fitted(migration: Migrate, args: dict[str, Any] | None = None, **kept: Any) -> Saved:
    """What one migration makes of that; the argument counts are not looked at."""

    def anything(ctx: Context, **more: Any) -> None: ...

    return fit(task(migration, fn=anything), args or {}, saved(**kept)).saved


def refused(migration: Migrate, **kept: Any) -> str:
    with pytest.raises(Unfit) as caught:
        fitted(migration, **(kept or {"state": {"a": 1}}))
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ── what it sees and changes ─────────────────────────────────────────────────────────────────────


def test_the_example_of_the_documentation_renames_a_loop_and_adds_an_argument() -> None:
    def example(saved: SavedState) -> SavedState:
        saved.args.setdefault("region", "eu")
        saved.cursors["rows"] = saved.cursors.pop("lines", None)
        return saved

    start = fit(task(example), {"path": "a"}, saved(cursors={"lines": Mark(41, 40, 100)}))
    assert start.args == {"path": "a", "region": "eu"}
    assert start.saved == saved(
        2,
        args={"path": "a", "region": "eu"},
        cursors={"rows": Mark(41, 40, 100, moved=True)},
    )
    assert fit(task(example), {"path": "a"}, saved(state={"n": 1})).saved.cursors == {}


def test_a_migration_sees_what_the_tasks_author_sees() -> None:
    seen: list[tuple[Any, ...]] = []

    def look(saved: SavedState) -> None:
        seen.append((saved.args, saved.steps, saved.cursors, saved.state))

    fitted(
        look,
        {"path": "a"},
        steps={"count": (1, 2)},
        cursors={"rows": Mark({"page": 3}, 7), "list": Mark(2, 2, 9, 9, b"x" * 8)}
        | {"over": Mark(9, 9, 9, 9, finished=True), "done": Mark(None, 4, finished=True)},
        state={"sum": 1},
    )
    cursors = {"rows": {"page": 3}, "list": 2, "over": FINISHED, "done": FINISHED}
    assert seen == [({"path": "a"}, {"count": (1, 2)}, cursors, {"sum": 1})]
    assert repr(FINISHED) == "taskd.FINISHED"


def test_what_returns_nothing_has_changed_what_it_was_given() -> None:
    def mutate(saved: SavedState) -> None:
        saved.steps["b"] = saved.steps.pop("a")
        saved.state["n"] += 1

    expected = saved(2, args={}, steps={"b": 1}, state={"n": 2})
    assert fitted(mutate, steps={"a": 1}, state={"n": 1}) == expected


def test_what_returns_another_object_has_replaced_it() -> None:
    def replace(saved: SavedState) -> SavedState:
        return SavedState({"x": 1}, {"s": 2}, {"c": 3}, {"t": 4})

    expected = saved(2, args={"x": 1}, steps={"s": 2}, state={"t": 4})
    expected.cursors = {"c": Mark(3, 0, moved=True)}
    assert fitted(replace, {"y": 0}, state={"n": 1}) == expected


def test_what_was_saved_is_not_changed_even_by_one_that_raises() -> None:
    def spoil(saved: SavedState) -> None:
        saved.args["list"].append("spoilt")
        saved.steps["a"].append("spoilt")
        saved.cursors["rows"]["page"] = "spoilt"
        saved.state.clear()
        raise ValueError

    kept = saved(steps={"a": []}, cursors={"rows": Mark({"page": 1}, 1)}, state={"n": 1})
    args: dict[str, Any] = {"list": []}
    before = kept.encode()
    with pytest.raises(Unfit):
        fit(task(spoil), args, kept)
    assert (kept.encode(), args) == (before, {"list": []})


def test_a_chain_runs_in_order_each_on_what_the_one_before_left() -> None:
    def note(number: int) -> Migrate:
        return lambda saved: saved.state.setdefault("ran", []).append(number)

    chain = task(note(1), note(2), note(3))
    for version, ran in ((1, [1, 2, 3]), (2, [2, 3]), (3, [3])):
        start = fit(chain, {}, saved(version, steps={"a": 1}))
        assert (start.saved.state, start.saved.version) == ({"ran": ran}, 4)
        assert (start.migrations, start.rebase) == (len(ran), True)
    start = fit(chain, {}, kept := saved(4, steps={"a": 1}))
    assert (start.saved is kept, start.migrations, start.rebase) == (True, 0, False)


def test_a_migration_does_not_share_values_with_the_next() -> None:
    shared: list[int] = []

    def first(saved: SavedState) -> None:
        saved.state["list"] = saved.state["same"] = shared

    def second(saved: SavedState) -> None:
        saved.state["list"].append(1)

    start = fit(task(first, second), {}, saved(steps={"a": 1}))
    assert start.saved.state == {"list": [1], "same": []}
    assert shared == []


# ── cursors ──────────────────────────────────────────────────────────────────────────────────────

NUMBERED = Mark(2, 2, 9, 9, b"x" * 8)


def cursors_after(change: Callable[[dict[str, Any]], Any], before: dict[str, Mark]) -> Any:
    return fitted(lambda saved: change(saved.cursors) and None, cursors=before).cursors


def test_a_cursor_that_stays_keeps_all_that_is_known_of_its_loop() -> None:
    before = {"list": NUMBERED, "over": Mark(None, 5, 5, finished=True), "rows": Mark("c", 1)}
    assert cursors_after(lambda c: c.setdefault("rows", 0), before) == before


def test_a_cursor_that_moves_takes_what_is_known_of_its_loop_with_it() -> None:
    over = Mark(None, 5, 5, finished=True)
    found = cursors_after(
        lambda c: c.update(new=c.pop("list"), past=c.pop("over")), {"list": NUMBERED, "over": over}
    )
    assert found == {"new": NUMBERED._replace(moved=True), "past": over._replace(moved=True)}


def test_two_cursors_can_be_exchanged() -> None:
    found = cursors_after(
        lambda c: c.update(a=c["b"], b=c["a"]), {"a": Mark(1, 1), "b": Mark(5, 3)}
    )
    assert found == {"a": Mark(5, 3, moved=True), "b": Mark(1, 1, moved=True)}


def test_where_two_loops_stood_at_the_same_cursor_nothing_is_taken_for_known() -> None:
    before = {"a": NUMBERED, "b": Mark(2, 2, 5, 5, b"y" * 8)}
    found = cursors_after(lambda c: c.update(x=c.pop("a"), y=c.pop("b")), before)
    assert found == {"x": Mark(2, 0, moved=True), "y": Mark(2, 0, moved=True)}


def test_a_cursor_that_changes_keeps_its_count_and_loses_the_fingerprint() -> None:
    found = cursors_after(lambda c: c.update(list=4), {"list": NUMBERED})
    assert found == {"list": Mark(4, 2, 9, moved=True)}
    page = {"rows": Mark({"page": 1}, 3)}
    found = cursors_after(lambda c: c["rows"].update(page=9), page)
    assert found == {"rows": Mark({"page": 9}, 3, moved=True)}


def test_a_cursor_of_none_is_no_cursor() -> None:
    assert cursors_after(lambda c: c.update(list=None, other=None), {"list": NUMBERED}) == {}


def test_a_loop_can_be_made_finished_and_begun_again() -> None:
    over = {"rows": Mark(None, 5, finished=True)}
    assert cursors_after(lambda c: c.update(rows=FINISHED, more=FINISHED), over) == over | {
        "more": Mark(None, 0, finished=True)
    }
    assert cursors_after(lambda c: c.update(rows=3), over) == {"rows": Mark(3, 5, moved=True)}


def test_rename_takes_what_is_below_with_it() -> None:
    start = fitted(
        lambda saved: saved.rename("lines", "rows"),
        steps={"lines/parse": 1, "linesman": 2, "lines/parts/cut": 3},
        cursors={"lines": Mark(4, 4), "lines/parts": NUMBERED},
    )
    assert start.steps == {"rows/parse": 1, "linesman": 2, "rows/parts/cut": 3}
    assert start.cursors == {
        "rows": Mark(4, 4, moved=True),
        "rows/parts": NUMBERED._replace(moved=True),
    }


def test_rename_of_what_is_not_saved_is_nothing_and_of_what_is_taken_an_error() -> None:
    assert fitted(lambda saved: saved.rename("lines", "rows"), steps={"a": 1}).steps == {"a": 1}
    why = refused(lambda saved: saved.rename("a", "b"), steps={"a": 1, "b": 2})
    assert "raised ValueError: cannot rename 'a' to 'b': 'b' is saved too" in why


# ── what it may not leave ────────────────────────────────────────────────────────────────────────


def test_one_that_raises_is_refused_with_its_name_its_place_and_what_it_raised() -> None:
    def from_lines(saved: SavedState) -> None:
        saved.cursors.pop("lines")

    line = from_lines.__code__.co_firstlineno
    assert refused(from_lines) == (
        f"the migration of 'job' from version 1 to 2 (from_lines, {__file__}:{line}) raised "
        "KeyError: 'lines'"
    )


class Odd(BaseException):
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (SystemExit(3), "called sys.exit(3)"),
        (SystemExit(), "called sys.exit(None)"),
        (KeyboardInterrupt(), "raised KeyboardInterrupt"),
        (taskd.Interrupted("x"), "raised Interrupted: x"),
        (Odd(), "raised Odd: (its text is not known: __str__ raised RuntimeError)"),
        (ValueError("two\nlines " + "x" * 999), f"raised ValueError: two lines {'x' * 400}"),
    ],
)
def test_whatever_it_raises_is_told_in_one_line(error: BaseException, told: str) -> None:
    def fail(saved: SavedState) -> None:
        raise error

    assert told in refused(fail)


def set_field(name: str, value: Any) -> Migrate:
    return lambda saved: setattr(saved, name, value)


@pytest.mark.parametrize(
    ("migration", "told"),
    [
        (lambda saved: 5, "returned int: it must return what it was given"),
        (lambda saved: Saved(2), "returned Saved: it must return"),
        (lambda saved: saved.state.update(f=print), 'cannot be saved: saved.state["f"]'),
        (lambda saved: saved.state.update(f=float), 'saved.state["f"]'),
        (lambda saved: saved.args.update(d=os.environ), 'cannot be saved: saved.args["d"]'),
        (lambda saved: saved.steps.update(a=object()), 'saved.steps["a"] is of type object'),
        (lambda saved: saved.cursors.update(rows=iter(())), 'saved.cursors["rows"] is of type'),
        (lambda saved: saved.cursors.update(rows=b"x" * 70_000), "the limit is 65,536"),
        (lambda saved: saved.steps.update(a=b"x" * 1_100_000), "the limit is 1,048,576"),
        (lambda saved: saved.args.update(a=b"x" * 1_100_000), "the limit is 1,048,576"),
        (lambda saved: saved.state.update(a=b"x" * 17_000_000), "the limit is 16,777,216"),
        (
            lambda saved: saved.steps.update({str(n): b"x" * 1_000_000 for n in range(17)}),
            "the limit is 16,777,216",
        ),
        (lambda saved: saved.args.update({1: 2}), "saved.args has a key 1"),
        (lambda saved: saved.steps.update({1: 2}), "saved.steps has a key 1, which is no path"),
        (lambda saved: saved.cursors.update({"a//b": 2}), "saved.cursors has a key 'a//b'"),
        (
            lambda saved: saved.cursors.update(a=saved.steps.setdefault("a", 1)),
            "'a' is in saved.steps and in saved.cursors",
        ),
        (set_field("state", [1]), "saved.state must be a dict, not list"),
        (set_field("args", None), "saved.args must be a dict, not NoneType"),
        (set_field("cursor", {}), "raised AttributeError"),
    ],
)
def test_what_cannot_be_saved_is_refused_with_the_place(migration: Migrate, told: str) -> None:
    why = refused(migration)
    assert why.startswith(("what the migration of 'job'", "the migration of 'job'"))
    assert told in why


def test_a_value_that_refers_to_itself_is_refused() -> None:
    def knot(saved: SavedState) -> None:
        saved.state["self"] = saved.state

    assert "cannot be saved: " in refused(knot)


def test_a_child_that_a_migration_forks_ends_there() -> None:
    def forks(saved: SavedState) -> None:
        pid = os.fork()
        saved.state["pid"] = pid
        if pid:
            os.waitpid(pid, 0)

    def under_test() -> int:
        return int(fitted(forks, state={"a": 1}).state["pid"])

    assert in_child(under_test) > 0


# ── versions ─────────────────────────────────────────────────────────────────────────────────────


def nothing(saved: SavedState) -> None: ...


def test_state_of_a_newer_version_is_refused() -> None:
    with pytest.raises(Unfit) as caught:
        fit(task(nothing), {}, saved(3, steps={"a": 1}))
    assert str(caught.value) == (
        "the state of 'job' was saved by version 3, this code is version 2"
    )


def test_a_gap_in_the_chain_is_refused_and_named() -> None:
    with_gap = task(nothing, None, nothing)
    with pytest.raises(Unfit, match=r"saved by version 1, this code is version 4, and there is no"):
        fit(with_gap, {}, saved(1, steps={"a": 1}))
    with pytest.raises(Unfit, match=r"no migration from version 2 to 3 \(@job.migrate\(2\)\)$"):
        fit(with_gap, {}, saved(2, steps={"a": 1}))
    assert fit(with_gap, {}, saved(3, steps={"a": 1})).migrations == 1


def add_region(saved: SavedState) -> None:
    saved.args.setdefault("region", "eu")


def test_arguments_of_an_older_submission_are_migrated_where_nothing_is_saved() -> None:
    for kept in (None, saved(1)):
        start = fit(task(add_region), {"path": "a"}, kept, 1)
        assert start.args == {"path": "a", "region": "eu"}
        assert (start.saved.args, start.saved.version) == (start.args, 2)
        assert (start.migrations, start.rebase) == (1, True)


def test_arguments_are_taken_as_they_are_where_nothing_is_saved_and_no_chain_leads_here() -> None:
    for made, version in ((task(version=3), 1), (task(None, nothing), 1), (task(), 5)):
        start = fit(made, {"path": "a"}, None, version)
        assert (start.args, start.saved) == ({"path": "a"}, Saved(made.version))
        assert start.migrations == 0
        with pytest.raises(Unfit, match="no longer bind: unexpected argument 'pth'"):
            fit(made, {"pth": "a"}, None, version)


def test_what_is_saved_goes_before_the_version_of_the_submission() -> None:
    kept = saved(2, args={"path": "b"}, steps={"a": 1})
    start = fit(task(add_region), {"gone": 1}, kept, 1)
    assert (start.args, start.migrations) == ({"path": "b"}, 0)


def test_without_a_version_the_submission_counts_as_of_now() -> None:
    start = fit(task(add_region), {"path": "a"}, None, None)
    assert (start.args, start.migrations, start.rebase) == ({"path": "a"}, 0, False)


def test_migrated_arguments_must_bind() -> None:
    def rename(saved: SavedState) -> None:
        saved.args["pfad"] = saved.args.pop("path")

    with pytest.raises(Unfit, match=r"arguments no longer bind: unexpected argument 'pfad'"):
        fit(task(rename), {"path": "a"}, None, 1)


def test_migrated_arguments_are_those_of_the_attempts_after() -> None:
    first = fit(task(add_region), {"path": "a"}, saved(steps={"a": 1})).saved
    again = Saved.decode(first.encode())
    later = task(nothing, lambda saved: saved.args.update(path=saved.args["region"]))
    assert fit(later, {"path": "a"}, again).args == {"path": "eu", "region": "eu"}
