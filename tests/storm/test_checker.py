"""The checker finds each kind of broken promise, and nothing in histories that kept them all.

Longer than 400 lines because every rule of the checker has its history that
breaks it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from made_up import RIGHT, Effects, Story

from contrib.storm.history import EVERY, Call, Cancel, Followed, Life, crashes
from contrib.storm.programs import ballast

AGAIN = ("queued", "running", "queued", "running", "succeeded")
DIED = "died 3 times at the same place; the last time its process was killed by SIGKILL"


def story(effects: Effects, *states: str) -> Story:
    made = Story()
    made.effects = effects
    made.states(*states or AGAIN)
    return made


# ── what is right ────────────────────────────────────────────────────────────────────────────


def test_one_attempt_that_does_everything_is_right() -> None:
    assert Story().violations() == []


def finish_from(effects: Effects, row: int) -> Effects:
    for number in range(row, 2):
        effects.row(number)
    return effects.tell("loop-end", "rows").step("last").end()


def resumed(cut: Callable[[Effects], object], go_on: Callable[[Effects], object]) -> Story:
    """``cut``: what the first attempt does before it is killed; ``go_on``: the second."""
    effects = Effects().begin()
    cut(effects)
    effects.begin()
    go_on(effects)
    return story(effects)


RIGHTLY_RESUMED: dict[str, tuple[Callable[[Effects], object], Callable[[Effects], object]]] = {
    "at once": (lambda e: None, lambda e: finish_from(e.step("first"), 0)),
    "in a step": (
        lambda e: e.tell("step-begin", "first"),
        lambda e: finish_from(e.step("first"), 0),
    ),
    "behind a step that was kept, unseen": (
        lambda e: e.tell("step-begin", "first").tell("step-end", "first", "n-first"),
        lambda e: finish_from(e.kept("first"), 0),
    ),
    "behind a step that was not kept yet": (
        lambda e: e.tell("step-begin", "first").tell("step-end", "first", "n-first"),
        lambda e: finish_from(e.step("first"), 0),
    ),
    "in an inner item": (
        lambda e: e.step("first").tell("item-begin", "rows/0").step("rows/0/in").cell(
            "rows/0/cells/0"
        ).tell("item-begin", "rows/0/cells/1"),
        lambda e: finish_from(
            e.kept("first").tell("item-begin", "rows/0").kept("rows/0/in").cell("rows/0/cells/1")
            .tell("loop-end", "rows/0/cells").tell("item-end", "rows/0"), 1
        ),
    ),
    "behind an item that was saved, unseen": (
        lambda e: e.step("first").row(0),
        lambda e: finish_from(e.kept("first"), 1),
    ),
    "behind an item that was not saved yet": (
        lambda e: e.step("first").row(0),
        lambda e: finish_from(
            e.kept("first").tell("item-begin", "rows/0").kept("rows/0/in")
            .tell("loop-end", "rows/0/cells").tell("item-end", "rows/0"), 1
        ),
    ),
    "between its last line and its end": (
        lambda e: finish_from(e.step("first"), 0),
        lambda e: e.kept("first").tell("loop-end", "rows").kept("last").end(),
    ),
}  # fmt: skip


@pytest.mark.parametrize("where", RIGHTLY_RESUMED)
def test_an_attempt_that_was_killed(where: str) -> None:
    assert resumed(*RIGHTLY_RESUMED[where]).violations() == []


def test_a_task_that_left_in_order_goes_on_behind_the_item() -> None:
    effects = Effects().begin().step("first").row(0).end("left: Interrupted: a deploy").begin()
    assert story(finish_from(effects.kept("first"), 1)).violations() == []


# ── what is not ──────────────────────────────────────────────────────────────────────────────

KEPT = "nothing kept is done again"

WRONGLY_RESUMED: dict[str, tuple[Callable[[Effects], object], Callable[[Effects], object], str]] = {
    "a step that was kept": (
        lambda e: e.step("first"),
        lambda e: finish_from(e.step("first"), 0),
        "step first ran again",
    ),
    "a step with another result": (
        lambda e: e.step("first"),
        lambda e: finish_from(e.tell("step-kept", "first", "n-other"), 0),
        "gave n-other, and had given n-first",
    ),
    "an item that was saved": (
        lambda e: e.step("first").row(0).tell("item-begin", "rows/1"),
        lambda e: finish_from(e.kept("first"), 0),
        "item rows/0 ran again",
    ),
    "an inner step that was kept": (
        lambda e: e.step("first").tell("item-begin", "rows/0").step("rows/0/in"),
        lambda e: finish_from(e.kept("first"), 0),
        "step rows/0/in ran again",
    ),
    "an inner item that was saved": (
        lambda e: e.step("first").tell("item-begin", "rows/0").step("rows/0/in").cell(
            "rows/0/cells/0"
        ).tell("item-begin", "rows/0/cells/1"),
        lambda e: e.kept("first").tell("item-begin", "rows/0").kept("rows/0/in").cell(
            "rows/0/cells/0"
        ).end(),
        "item rows/0/cells/0 ran again",
    ),
    "all, skipping an item": (
        lambda e: e.step("first"),
        lambda e: finish_from(e.kept("first"), 1),
        "something was skipped",
    ),
    "all, skipping the item at hand": (
        lambda e: e.step("first").tell("item-begin", "rows/0").step("rows/0/in"),
        lambda e: finish_from(e.kept("first"), 1),
        "something was skipped",
    ),
    "all, skipping the last step": (
        lambda e: e.step("first").row(0).row(1),
        lambda e: e.kept("first").tell("loop-end", "rows").end(),
        "returned before its program was done",
    ),
    "a loop that was over": (
        lambda e: e.step("first").row(0).row(1).tell("loop-end", "rows"),
        lambda e: finish_from(e.kept("first"), 1),
        "item rows/1 ran again",
    ),
    "more than there is": (
        lambda e: None,
        lambda e: finish_from(e.step("first"), 0).step("more"),
        "came after the end",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONGLY_RESUMED)
def test_a_second_attempt_that_does(what: str) -> None:
    cut, go_on, said = WRONGLY_RESUMED[what]
    made = resumed(cut, go_on)
    assert KEPT in made.rules_broken()
    assert said in made.said()


def test_a_step_that_runs_twice_in_one_attempt() -> None:
    effects = Effects().begin().step("first").step("first")
    assert "step first ran again" in story(effects, "queued", "running", "failed").said()


def test_a_task_that_was_made_to_leave_in_the_middle_of_an_item() -> None:
    effects = Effects().begin().step("first").tell("item-begin", "rows/0")
    effects.end("left: Interrupted: a deploy").begin()
    made = story(finish_from(effects.kept("first"), 0))
    assert "middle of an item" in made.said()
    made.cancels = [Cancel(1, None, None)]  # a task that is cancelled may leave anywhere
    assert made.violations() == []


def test_an_item_repeated_after_the_task_left_behind_it() -> None:
    effects = Effects().begin().step("first").row(0).end("left: Interrupted: a deploy").begin()
    effects.kept("first").tell("item-begin", "rows/0")
    assert "item rows/0 ran again" in story(effects).said()


def test_an_item_repeated_as_there_was_no_room_to_save_it_is_right() -> None:
    effects = Effects().begin().step("first").row(0)
    effects.end("left: Interrupted: cannot save: no room in the slot").begin()
    effects.kept("first").tell("item-begin", "rows/0").kept("rows/0/in")
    effects.tell("loop-end", "rows/0/cells").tell("item-end", "rows/0")
    assert story(finish_from(effects, 1)).violations() == []


def spoil_acknowledged(made: Story) -> None:
    made.calls.append(Call("other", "plain-finish", {"tag": "other", "program": []}, None, 7))


def spoil_running(made: Story) -> None:
    made.task["state"] = "running"


def spoil_doubled(made: Story) -> None:
    more = Effects(2).whole()
    made.effects.lines += more.lines
    made.states("queued", "running", "succeeded", task=2)
    made.tasks.append(made.task | {"id": 2})


def spoil_key(made: Story) -> None:
    made.key = "key"
    made.calls = [made.call(1), made.call(2)]
    spoil_doubled(made)
    for number, event in enumerate(sorted(made.events, key=lambda e: (e["state"], e["task"])), 1):
        event["event"] = number
    made.events.sort(key=lambda e: int(e["event"]))


def spoil_tag(made: Story) -> None:
    made.calls = [Call("other", *made.calls[0][1:])]


def spoil_refused(made: Story) -> None:
    made.refused = [{"tag": "tag", "code": "unknown-task", "why": "no task of that name"}]


def spoil_held(made: Story) -> None:
    made.held = [{"task": 1, "why": "no live revision can continue it"}]


def spoil_claim(made: Story) -> None:
    made.effects.tell("overlap")


def spoil_places(made: Story) -> None:
    made.places["default"] = 0


def spoil_ceiling(made: Story) -> None:
    made.places[EVERY] = 0


def spoil_order(made: Story) -> None:
    made.effects.begin()
    made.effects.attempt = 1
    made.effects.tell("step-begin", "last")


def spoil_pid(made: Story) -> None:
    made.effects.lines[4] = made.effects.lines[4]._replace(pid=999)


def spoil_begin(made: Story) -> None:
    made.effects.tell("attempt-begin", "tag")


def spoil_late(made: Story) -> None:
    made.effects.begin()


def spoil_cut(made: Story) -> None:
    made.effects.lines.pop()


def spoil_end(made: Story) -> None:
    made.states("queued", "running", "succeeded", "queued", "running", "succeeded")


def spoil_state(made: Story) -> None:
    made.states("queued", "running", "queued", "succeeded")


def spoil_attempts(made: Story) -> None:
    for event in made.events:
        event["attempt"] *= 2


def spoil_gap(made: Story) -> None:
    made.events[-1]["event"] += 1


def spoil_twice(made: Story) -> None:
    made.events.append(made.events[-1])


def spoil_stream(made: Story) -> None:
    made.followed = [Followed([1], [made.events[0], made.events[2]])]


def spoil_repeated_stream(made: Story) -> None:
    made.followed = [Followed([1], [made.events[0], made.events[0]])]


def spoil_stranger(made: Story) -> None:
    made.calls = []


def spoil_result(made: Story) -> None:
    made.task["result"] = RIGHT | {"sum": 1}


def spoil_step_result(made: Story) -> None:
    made.task["result"] = RIGHT | {"steps": {"first": "n-first", "last": "n-other"}}


def spoil_held_state(made: Story) -> None:
    made.program.append(["hold", 1000])
    made.calls = [made.call(1)]
    made.task["result"] = RIGHT | {"held": zlib.crc32(ballast(999))}


def spoil_argument(made: Story) -> None:
    made.further = {"a1": 7}
    made.calls = [made.call(1)]
    made.task["result"] = RIGHT | {"further": {"a1": 8}}


def spoil_failed(made: Story) -> None:
    made.states("queued", "running", "failed")


def spoil_unasked(made: Story) -> None:
    made.states("queued", "running", "cancelled")


def spoil_doom(made: Story) -> None:
    made.program.append(["fail"])
    made.calls = [made.call(1)]


def spoil_cancelled(made: Story) -> None:
    made.cancels = [Cancel(1, 5, "running")]
    made.states("queued", "running", "failed")


def spoil_begun_again(made: Story) -> None:
    made.cancels = [Cancel(1, 0, "running")]
    made.effects.begin()


def spoil_life(made: Story) -> None:
    made.lives.append(Life(20.0, 21.0, 1))


def spoil_crash(made: Story) -> None:
    made.lives.append(Life(20.0, 21.0, -11))
    made.full = [(0.0, 30.0)]


def spoil_stopped(made: Story) -> None:
    made.lives.append(Life(20.0, 21.0, 0))
    made.stops = [19.0, 21.5]


def spoil_traceback(made: Story) -> None:
    made.crashes = ["ValueError: of taskd's own"]


def spoil_release(made: Story) -> None:
    made.effects.lines[2] = made.effects.lines[2]._replace(release="bad-tasks")


def spoil_stop(made: Story) -> None:
    made.findings = ["process 7 was left after the stop"]


SPOILT = {
    spoil_acknowledged: "nothing is lost",
    spoil_running: "every task has ended",
    spoil_doubled: "one submission is one task",
    spoil_key: "one submission is one task",
    spoil_tag: "one submission is one task",
    spoil_refused: "only a full disk refuses",
    spoil_held: "only spent budgets hold",
    spoil_claim: "none runs twice at a time",
    spoil_places: "no queue has more than its places",
    spoil_ceiling: "no queue has more than its places",
    spoil_order: "none runs twice at a time",
    spoil_pid: "none runs twice at a time",
    spoil_begin: "none runs twice at a time",
    spoil_late: "nothing runs after the end",
    spoil_cut: "nothing runs after the end",
    spoil_end: "each ends once",
    spoil_state: "states follow each other",
    spoil_attempts: "states follow each other",
    spoil_gap: "events have no gap",
    spoil_twice: "events have no gap",
    spoil_stream: "who followed missed nothing",
    spoil_repeated_stream: "who followed missed nothing",
    spoil_stranger: "nothing kept is done again",
    spoil_result: "results are right",
    spoil_step_result: "results are right",
    spoil_held_state: "results are right",
    spoil_argument: "results are right",
    spoil_failed: "ends are as they must be",
    spoil_unasked: "ends are as they must be",
    spoil_doom: "ends are as they must be",
    spoil_cancelled: "who is cancelled ends",
    spoil_begun_again: "who is cancelled ends",
    spoil_life: "the daemon ends as it was made to",
    spoil_crash: "the daemon ends as it was made to",
    spoil_stopped: "the daemon ends as it was made to",
    spoil_traceback: "nothing crashed",
    spoil_release: "no bad release ran",
    spoil_stop: "the storm found nothing",
}


@pytest.mark.parametrize("spoil", SPOILT, ids=lambda spoil: spoil.__name__)
def test_each_broken_promise_is_found(spoil: Callable[[Story], None]) -> None:
    made = Story()
    made.program = [*made.program]
    spoil(made)
    assert SPOILT[spoil] in made.rules_broken()


def test_a_large_state_and_further_arguments_that_come_back_are_right() -> None:
    made = Story()
    made.program = [*made.program, ["hold", 1000]]
    made.further = {"a1": 7, "a2": 8}
    made.calls = [made.call(1)]
    made.task["result"] = RIGHT | {"held": zlib.crc32(ballast(1000)), "further": made.further}
    assert made.violations() == []


def test_a_queue_may_be_full_and_places_are_free_again() -> None:
    made = Story()
    made.places = {"default": 1, EVERY: 1}
    made.states(*AGAIN)
    made.effects = Effects().begin()
    finish_from(made.effects.begin().step("first"), 0)
    assert made.violations() == []


def test_a_held_task_whose_budget_is_spent_is_right() -> None:
    made = Story()
    made.held = [{"task": 1, "why": DIED}]
    assert made.violations() == []


def test_a_stream_that_ended_early_is_right() -> None:
    made = Story()
    made.followed = [Followed([1], made.events[:2])]
    assert made.violations() == []


def test_another_task_for_a_key_whose_task_had_ended_is_right() -> None:
    made = Story()
    made.key = "key"
    made.calls = [made.call(1), made.call(2)]
    spoil_doubled(made)
    assert made.violations() == []


def test_a_start_that_failed_on_a_full_disk_is_right() -> None:
    made = Story()
    made.lives.append(Life(20.0, 21.0, 1))
    made.full = [(5.0, 20.5)]
    assert made.violations() == []


def test_a_daemon_that_was_told_to_stop_may() -> None:
    made = Story()
    made.lives.append(Life(20.0, 21.0, 0))
    made.stops = [20.5]
    assert made.violations() == []


def test_a_start_whose_zygote_was_killed_is_right() -> None:
    made = Story()
    made.lives.append(Life(20.0, 21.0, 1))
    made.kills = [20.5]
    assert made.violations() == []


def test_a_traceback_at_the_beginning_of_a_line_is_a_crash(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(
        "12:00:00 ready\nTraceback (most recent call last):\n  File x\n    call()\n"
        "ValueError: of taskd's own\n12:00:01   Traceback (most recent call last):\n"
    )
    assert crashes(str(log)) == ["ValueError: of taskd's own"]
