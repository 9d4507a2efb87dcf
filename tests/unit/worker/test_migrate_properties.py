"""Random states through random chains: as if the functions had been applied one after the other."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

from hypothesis import given, strategies as st

from taskd import FINISHED, Context, SavedState
from taskd.protocol.saved import Mark, Saved
from taskd.tasks import make_task
from taskd.worker.migrate import fit

NAMES = st.sampled_from(["a", "b", "a/x", "b/x", "a/x/y"])
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=3), st.binary(max_size=3)),
    lambda inner: st.lists(inner, max_size=2) | st.tuples(inner),
    max_leaves=4,
)
CURSORS = VALUES.filter(lambda value: value is not None) | st.just(FINISHED)

Change = tuple[Any, ...]
CHANGES: st.SearchStrategy[Change] = st.one_of(
    st.tuples(st.sampled_from(["args", "state"]), st.sampled_from("pqr"), VALUES),
    st.tuples(st.just("step"), NAMES, VALUES),
    st.tuples(st.just("cursor"), NAMES, CURSORS | st.none()),
    st.tuples(st.just("move"), NAMES, NAMES),
    st.tuples(st.just("forget"), NAMES),
    st.tuples(st.just("clear"), st.sampled_from(["args", "steps", "cursors", "state"])),
)
MIGRATIONS = st.tuples(st.lists(CHANGES, max_size=4), st.sampled_from(["none", "same", "new"]))


def apply(saved: SavedState, change: Change) -> None:
    match change:
        case ("args" | "state", name, value):
            getattr(saved, change[0])[name] = value
        case ("step", path, value):
            saved.cursors.pop(path, None)
            saved.steps[path] = value
        case ("cursor", path, value):
            saved.steps.pop(path, None)
            saved.cursors[path] = value
        case ("move", old, new):
            saved.steps.pop(new, None)
            saved.cursors[new] = saved.cursors.pop(old, None)
        case ("forget", path):
            saved.steps.pop(path, None)
            saved.cursors.pop(path, None)
        case ("clear", name):
            getattr(saved, name).clear()


def migration(changes: list[Change], how: str) -> Callable[[SavedState], SavedState | None]:
    def migrate(saved: SavedState) -> SavedState | None:
        result = saved if how != "new" else deepcopy(saved)
        for change in deepcopy(changes):
            apply(result, change)
        return None if how == "none" else result

    return migrate


@st.composite
def marks(draw: st.DrawFn) -> Mark:
    cursor, done = draw(CURSORS), draw(st.integers(0, 9))
    if cursor is FINISHED:
        return Mark(None, done, draw(st.none() | st.integers(0, 9)), finished=True)
    if type(cursor) is int:
        return Mark(cursor, done, 9, 9, draw(st.none() | st.binary(min_size=8, max_size=8)))
    return Mark(cursor, done)


@st.composite
def states(draw: st.DrawFn) -> Saved:
    saved = Saved(1)
    saved.steps = draw(st.dictionaries(NAMES, VALUES))
    cursors = draw(st.dictionaries(NAMES, marks()))
    saved.cursors = {path: mark for path, mark in cursors.items() if path not in saved.steps}
    saved.state = draw(st.dictionaries(st.sampled_from("pqr"), VALUES))
    return saved


def seen(saved: Saved, args: dict[str, Any]) -> SavedState:
    """As a user thinks of it."""
    cursors = {p: FINISHED if m.finished else m.cursor for p, m in saved.cursors.items()}
    return deepcopy(SavedState(args, saved.steps, cursors, saved.state))


def parts(saved: SavedState) -> tuple[Any, ...]:
    cursors = {path: cursor for path, cursor in saved.cursors.items() if cursor is not None}
    return saved.args, saved.steps, cursors, saved.state


@given(states(), st.dictionaries(st.sampled_from("pqr"), VALUES), st.lists(MIGRATIONS, min_size=1))
def test_a_chain_gives_what_its_functions_give(
    saved: Saved, args: dict[str, Any], chain: list[tuple[list[Change], str]]
) -> None:
    def job(ctx: Context, **more: Any) -> None: ...

    task = make_task(job, name="job", version=len(chain) + 1)
    expected = seen(saved, args)
    for number, (changes, how) in enumerate(chain, 1):
        function = migration(changes, how)
        task.migrate(number)(function)
        expected = function(expected) or expected
        expected.cursors = parts(expected)[2]  # None is no cursor, from one link to the next too
    before, args_before = saved.encode(), deepcopy(args)
    start = fit(task, args, saved, 1)
    found = seen(start.saved, dict(start.args))
    assert parts(found) == parts(expected)
    assert start.saved.version == task.version
    assert Saved.decode(start.saved.encode()) == start.saved
    assert (saved.encode(), args) == (before, args_before)


@given(states(), NAMES, NAMES)
def test_what_is_known_of_a_loop_stays_with_a_cursor_that_is_not_touched(
    saved: Saved, old: str, new: str
) -> None:
    """Whatever else moves: length and fingerprint guard against a sequence that changed."""
    task = make_task(lambda ctx, **more: None, name="job", version=2)
    task.migrate(1)(migration([("move", old, new)], "none"))
    saved.state = {"not": "empty"}
    after = fit(task, {}, saved).saved.cursors
    for path in saved.cursors.keys() - {old, new}:
        assert after[path] == saved.cursors[path]
    if old in saved.cursors and old != new:
        mark = saved.cursors[old]
        assert old not in after
        assert (after[new].cursor, after[new].finished) == (mark.cursor, mark.finished)
