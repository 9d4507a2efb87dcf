"""The step-and-loop machine by itself: names, scopes, records, phases."""

from __future__ import annotations

from typing import Any

import pytest

from taskd.api.interrupt import Held
from taskd.api.journal import PHASES, Journal, Loop, Move, Phase
from taskd.api.source import fingerprint, source_of
from taskd.errors import NotPlainData
from taskd.protocol import data
from taskd.protocol.saved import Kind, Mark, Saved, read_mark


def journal(**kept: Any) -> Journal:
    saved = Saved(1)
    for name, value in kept.items():
        setattr(saved, name, value)
    return Journal(saved)


def write(of: Journal, moves: list[Move]) -> list[Move]:
    for move in moves:
        of.apply(move)
    return moves


def begin(of: Journal, name: str, source: Any, total: int | None = None) -> Loop:
    loop = Loop(of, name, source_of(name, source, ()), total)
    loop.open()
    return loop


def body_done(of: Journal, loop: Loop) -> list[Move]:
    moves, finished = loop.saving()
    write(of, moves)
    loop.saved(finished)
    return moves


def counting(cursor: int | None) -> Any:
    raise AssertionError("the machine itself calls no source")


@pytest.mark.parametrize("name", ["", "a/b", "/", "x" * 201, "\ud800"])
def test_a_name_that_cannot_be_part_of_a_path_is_refused(name: str) -> None:
    with pytest.raises(ValueError):
        journal().reserve("step", name)


def test_a_name_must_be_text() -> None:
    with pytest.raises(TypeError, match="the name of a loop must be a str, not int"):
        journal().reserve("loop", 5)  # type: ignore[arg-type]


def test_steps_loops_and_sleeps_share_one_set_of_names() -> None:
    j = journal()
    assert j.reserve("step", "a") == "a"
    for what in ("step", "loop", "sleep"):
        with pytest.raises(RuntimeError, match=f"{what} 'a': that name is used twice in one run"):
            j.reserve(what, "a")


def test_a_step_that_raised_frees_its_name() -> None:
    j = journal()
    j.release(j.reserve("step", "a"))
    assert j.reserve("step", "a") == "a"


def test_names_are_free_again_for_the_next_item() -> None:
    j = journal()
    loop = begin(j, "rows", counting)
    loop.arrive((1, "x"))
    assert j.reserve("step", "parse") == "rows/parse"
    with pytest.raises(RuntimeError, match="twice for one item of loop 'rows'"):
        j.reserve("step", "parse")
    j.release("rows/parse")
    j.reserve("step", "parse")
    body_done(j, loop)
    loop.arrive((2, "y"))
    assert j.reserve("step", "parse") == "rows/parse"
    with pytest.raises(RuntimeError, match="twice"):
        loop_again = Loop(j, "parse", source_of("parse", [1], ()), None)
        loop_again.open()


def test_a_step_is_written_durably_and_a_cursor_is_not() -> None:
    j = journal()
    assert j.step("a", data.encode(1)) == [
        Move(Kind.STEP, {"path": "a", "value": data.encode(1)}, durable=True)
    ]
    loop = begin(j, "rows", counting)
    loop.arrive((7, "x"))
    (move,) = body_done(j, loop)
    assert (move.kind, move.durable) == (Kind.LOOP, False)
    assert read_mark(move.fields["mark"]) == Mark(7, 1)


def test_state_is_written_in_the_record_of_the_move_that_found_it_changed() -> None:
    j = journal(state={"n": 1})
    assert "state" not in write(j, j.step("a", data.encode(1)))[0].fields
    j.state["n"] = 2
    assert write(j, j.step("b", data.encode(1)))[0].fields["state"] == data.encode({"n": 2})
    assert "state" not in write(j, j.step("c", data.encode(1)))[0].fields
    j.state["list"] = [1]
    write(j, j.checkpoint())
    j.state["list"].append(2)  # changed in place
    assert j.checkpoint()[0].fields == {"state": data.encode({"n": 2, "list": [1, 2]})}
    assert j.saved.state == {"n": 2, "list": [1]}


def test_a_checkpoint_with_nothing_new_writes_nothing() -> None:
    assert journal(state={"n": 1}).checkpoint() == []


def test_a_cursor_is_the_one_that_was_yielded_even_if_it_is_changed_later() -> None:
    j = journal()
    loop = begin(j, "rows", counting)
    cursor = [1]
    loop.arrive((cursor, "x"))
    cursor.append(2)
    body_done(j, loop)
    assert j.saved.cursors["rows"].cursor == [1]


def test_a_sequence_keeps_length_and_fingerprint_before_anything_of_its_first_item() -> None:
    j = journal()
    loop = begin(j, "rows", ["a", "b"])
    loop.arrive((1, "a"))
    entry, step = write(j, j.step(j.reserve("step", "x"), data.encode(1)))
    assert entry.kind is Kind.LOOP
    assert read_mark(entry.fields["mark"]) == Mark(0, 0, 2, 2, fingerprint("a"))
    assert step.fields["path"] == "rows/x"
    assert len(j.step(j.reserve("step", "y"), data.encode(1))) == 1, "written once"


def test_a_sequence_without_anything_kept_in_its_items_is_written_once_an_item() -> None:
    j = journal()
    loop = begin(j, "rows", ["a", "b"])
    loop.arrive((1, "a"))
    (first,) = body_done(j, loop)
    assert read_mark(first.fields["mark"]) == Mark(1, 1, 2, 2, fingerprint("b"))
    loop.arrive((2, "b"))
    (last,) = body_done(j, loop)
    assert read_mark(last.fields["mark"]) == Mark(2, 2, 2, 2, None, True)
    assert loop.phase is Phase.OVER
    assert j.loops == []


def test_loops_that_were_left_end_when_the_loop_around_them_goes_on() -> None:
    j = journal()
    outer = begin(j, "outer", counting)
    outer.arrive((1, "x"))
    inner = begin(j, "inner", counting)
    inner.arrive((1, "y"))
    body_done(j, outer)
    assert inner.phase is Phase.LEFT
    with pytest.raises(RuntimeError, match="loop 'inner' is asked for an item where it cannot"):
        inner.saving()
    assert j.loops == [outer]


def test_leaving_an_outer_loop_leaves_the_inner_ones() -> None:
    j = journal()
    outer = begin(j, "outer", counting)
    outer.arrive((1, "x"))
    inner = begin(j, "inner", counting)
    outer.leave()
    assert j.loops == []
    assert inner.phase is Phase.LEFT
    assert j.reserve("step", "after") == "after"


def test_a_loop_begins_only_in_the_scope_it_was_made_in() -> None:
    j = journal()
    loop = Loop(j, "rows", source_of("rows", [1], ()), None)
    other = begin(j, "other", counting)
    other.arrive((1, "x"))
    with pytest.raises(RuntimeError, match="outside of the loop it was made in"):
        loop.open()


def test_a_source_that_raised_does_not_count_as_finished() -> None:
    j = journal()
    loop = begin(j, "rows", counting)
    loop.arrive((1, "x"))
    body_done(j, loop)
    with pytest.raises(RuntimeError, match="its source raised"):
        loop.saving()  # asked for another item, with none at hand
    assert j.saved.cursors == {"rows": Mark(1, 1)}


def test_no_pair_of_phase_and_event_is_allowed_but_those_in_the_table() -> None:
    events = {event for _, event in PHASES}
    allowed = 0
    for phase in Phase:
        for event in events:
            loop = Loop(journal(), "rows", source_of("rows", counting, ()), None)
            loop.phase = phase
            if (phase, event) in PHASES:
                loop._go(event)
                allowed += 1
            else:
                with pytest.raises(RuntimeError):
                    loop._go(event)
    assert allowed == len(PHASES)


@pytest.mark.parametrize(
    ("kept", "use", "says"),
    [
        ({"cursors": {"a": Mark(1, 1)}}, "step", "saved as a loop and is now something else"),
        ({"steps": {"a": 1}}, "loop", "saved as a step and is now a loop"),
        ({"steps": {"a": 1}}, "sleep", "saved as a step and is now a sleep"),
    ],
)
def test_what_was_saved_as_another_kind_of_thing_holds_the_task(
    kept: dict[str, Any], use: str, says: str
) -> None:
    j = journal(**kept)
    with pytest.raises(Held, match=says):
        if use == "loop":
            begin(j, "a", counting)
        elif use == "step":
            j.is_kept(j.reserve("step", "a"))
        else:
            j.wake_time(j.reserve("sleep", "a"))


def test_all_that_is_saved_has_one_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "SAVED_LIMIT", 1000)
    j = journal()
    write(j, j.step("a", data.encode("x" * 600)))
    with pytest.raises(
        NotPlainData, match=r"would take 1,2\d\d bytes; the limit is 1,000.*ctx\.sc"
    ):
        j.step("b", data.encode("x" * 600))
    j.state["big"] = "x" * 600
    with pytest.raises(NotPlainData):
        j.checkpoint()
    j.state["big"] = "x" * 200
    write(j, j.checkpoint())
    write(j, j.step("a", data.encode("x" * 700)))  # in the place of what was there
    assert j.saved.size <= 1000


def test_what_a_moving_loop_drops_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "SAVED_LIMIT", 1000)
    j = journal()
    loop = begin(j, "rows", counting)
    for number in range(5):
        loop.arrive(("c" * 90, number))
        write(j, j.step(j.reserve("step", "parse"), data.encode("x" * 800)))
        body_done(j, loop)
    assert j.saved.cursors["rows"].done == 5
    assert j.saved.size < 200


def test_a_kept_result_is_a_copy_each_time() -> None:
    j = journal(steps={"a": [1]})
    j.result("a").append(2)
    assert j.result("a") == [1]


def test_the_users_state_is_a_copy_of_what_is_saved() -> None:
    j = journal(state={"a": [1]})
    j.state["a"].append(2)
    assert j.saved.state == {"a": [1]}


def test_fingerprints_do_not_depend_on_the_order_of_sets() -> None:
    first = {chr(number) for number in range(97, 123)}
    second = {chr(number) for number in reversed(range(97, 123))}
    assert fingerprint([first, {"k": (first,)}]) == fingerprint([second, {"k": (second,)}])
    assert fingerprint([first]) != fingerprint([second - {"a"}])


def test_an_item_that_is_not_plain_data_is_known_by_its_type() -> None:
    assert fingerprint(object()) == fingerprint(object())
    assert fingerprint(object()) != fingerprint(Journal)
    endless: list[Any] = []
    endless.append(endless)
    assert len(fingerprint(endless)) == 8
