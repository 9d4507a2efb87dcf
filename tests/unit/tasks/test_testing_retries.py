"""``testing.run`` tries a failed task again as the daemon would, without the waits."""

from __future__ import annotations

from typing import Any

import pytest

import taskd
from taskd import Context, testing
from taskd.tasks import make_task


def failing(times: int, **options: Any) -> Any:
    """A task that raises so often, and does each item once all the same."""
    left = iter(range(times))

    def job(ctx: Context) -> list[int]:
        for item in ctx.each("items", range(3)):
            if item == 1:
                for number in left:
                    raise ConnectionError(number)
            ctx.state["done"] = [*ctx.state.get("done", []), item]
        return list(ctx.state["done"])

    return make_task(job, **options)


def test_a_failed_task_is_tried_again_from_what_it_has_saved() -> None:
    done = testing.run(failing(3, retries=3, backoff=[1, 10, 60]))
    assert done.result == [0, 1, 2]
    assert (done.attempts, done.waited) == (4, [1, 10, 60])
    assert done.items == {"items": [0, 1, 1, 1, 1, 2]}
    assert [str(error) for error in done.failures] == ["0", "1", "2"]


def test_what_is_raised_in_the_end_is_the_last_error() -> None:
    with pytest.raises(ConnectionError, match="2"):
        testing.run(failing(9, retries=2))
    with pytest.raises(ConnectionError, match="0"):
        testing.run(failing(9))
    with pytest.raises(ConnectionError, match="0"):
        testing.run(failing(9, retries=5, give_up_on=OSError))


def test_the_wait_is_the_backoffs_or_what_the_task_asks_for() -> None:
    left = iter([{"after": 5}, {}, {"after": 60, "counts": False}])

    def job(ctx: Context) -> str:
        for how in left:
            raise ctx.retry(**how)
        return "in the end"

    done = testing.run(make_task(job, retries=2, backoff=lambda number: 100 * number))
    assert (done.result, done.waited) == ("in the end", [5, 200, 60])
    assert len(done.failures) == 2, "one that is put off is none"


def test_a_task_that_fails_for_good_or_cancels_itself_is_told() -> None:
    def fails(ctx: Context) -> None:
        ctx.fail("no such customer")

    def cancels() -> None:
        raise taskd.Cancel("not needed any more")

    with pytest.raises(taskd.Fail, match="no such customer"):
        testing.run(make_task(fails, retries=9))
    with pytest.raises(taskd.TaskCancelled, match="by the task itself: not needed any more"):
        testing.run(make_task(cancels, retries=9))


def test_a_kill_is_no_failure() -> None:
    part = testing.run(failing(1, retries=1), kill_at=("items", 1))
    assert (part.killed, part.failures) == (True, [])
