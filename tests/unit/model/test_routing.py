"""Which revision runs a task, and why none does."""

from __future__ import annotations

from typing import Any, NamedTuple

from hypothesis import given, strategies as st

from taskd.model.routing import Held, can_run, route


class Release(NamedTuple):
    """A live revision, as far as routing looks at it."""

    number: int
    name: str
    tasks: dict[str, Any]


def knows(version: int, *reads: int, name: str = "work") -> dict[str, Any]:
    return {name: {"version": version, "reads": [version, *reads]}}


def test_a_fresh_task_goes_to_the_current_revision() -> None:
    live = [Release(2, "r2", knows(2)), Release(1, "r1", knows(1))]
    assert route(live, "work", None) == live[0]


def test_saved_state_goes_to_the_current_revision_if_that_reads_it() -> None:
    live = [Release(2, "r2", knows(2, 1)), Release(1, "r1", knows(1))]
    assert route(live, "work", 1) == live[0]


def test_saved_state_that_the_current_one_cannot_read_goes_to_the_newest_that_can() -> None:
    live = [
        Release(4, "r4", knows(3)),
        Release(3, "r3", knows(2)),
        Release(2, "r2", knows(1)),
        Release(1, "r1", knows(1)),
    ]
    assert route(live, "work", 1) == live[2]


def test_a_name_that_the_current_one_has_not_goes_to_the_newest_that_has() -> None:
    live = [
        Release(3, "r3", knows(1, name="other")),
        Release(2, "r2", knows(1)),
        Release(1, "r1", knows(1)),
    ]
    assert route(live, "work", None) == live[1]


def test_a_task_that_none_can_run_is_held_and_each_revision_says_why() -> None:
    live = [Release(2, "r2", knows(1, name="other")), Release(1, "r1", knows(2))]
    held = route(live, "work", 1)
    assert isinstance(held, Held)
    assert held.reason == (
        "no live revision can run it: r2 has no task 'work'; "
        "r1 has 'work' at version 2, which cannot read state saved by 1"
    )


def test_without_a_live_revision_it_is_held() -> None:
    assert isinstance(route([], "work", None), Held)


def test_state_saved_by_a_newer_version_is_not_read_by_an_older_one() -> None:
    assert can_run(knows(1), "work", 2) is not None
    assert can_run(knows(1, 2), "work", 2) is None


MANIFESTS = st.dictionaries(
    st.sampled_from(["work", "other"]),
    st.builds(lambda v, reads: {"version": v, "reads": [v, *reads]}, st.integers(1, 4),
              st.lists(st.integers(1, 4))),
)  # fmt: skip


@given(st.lists(MANIFESTS, max_size=4), st.none() | st.integers(1, 4))
def test_the_first_that_can_is_taken_and_a_hold_means_that_none_can(
    manifests: list[dict[str, Any]], saved: int | None
) -> None:
    live = [Release(*each) for each in zip(range(4), "abcd", manifests, strict=False)]
    able = [each for each in live if can_run(each.tasks, "work", saved) is None]
    found = route(live, "work", saved)
    assert isinstance(found, Held) if not able else found == able[0]
