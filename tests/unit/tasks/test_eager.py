"""``taskd.testing.eager``: what it runs, what comes out, and what it refuses to play."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import taskd
from taskd import AsyncClient, AsyncContext, Client, Context, Secret, task, tasks, testing
from taskd.api import hooks
from taskd.api.interrupt import Held
from taskd.client import default, stand_in
from taskd.testing import NotEager


@pytest.fixture(autouse=True)
def _own_register(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "registered", {})
    monkeypatch.setattr(default, "made", None)
    monkeypatch.setenv("TASKD_SOCKET", "/nowhere")


@pytest.fixture
def eager() -> Iterator[None]:
    with testing.eager():
        yield


def add() -> Any:
    @task
    def add(a: int, b: int = 2) -> int:
        return a + b

    return add


def fails() -> Any:
    @task(retries=2)
    def fails(ctx: Context) -> None:
        seen.append(ctx.attempt)
        raise OSError("down")

    seen: list[int] = []
    fails.seen = seen  # type: ignore[attr-defined]
    return fails


def test_it_runs_at_once_in_this_thread(eager: None) -> None:
    where = []

    @task
    def tells(ctx: Context) -> list[Any]:
        where.append((os.getpid(), threading.get_ident(), os.environ["TASKD_TASK_ID"]))
        return [ctx.id, ctx.revision, ctx.attempt, taskd.current() is ctx]

    handle = tells.submit()
    assert where == [(os.getpid(), threading.get_ident(), str(handle.id))]
    assert handle.result() == [str(handle.id), "eager", 1, True]
    assert "TASKD_TASK_ID" not in os.environ


def test_an_error_comes_out_of_the_result_after_all_tries(eager: None) -> None:
    made = fails()
    handle = made.submit()
    assert made.seen == [1, 2, 3]
    with pytest.raises(taskd.TaskFailed, match="failed: OSError: down"):
        handle.result()
    info = handle.status()
    assert (info.state, info.attempt, info.reason) == ("failed", 3, "OSError: down")
    assert made.using(retries=0).submit().status().attempt == 1


def test_it_comes_out_of_submit_if_that_is_said() -> None:
    made = fails()
    with testing.eager(raises=True):
        with pytest.raises(OSError, match="down"):
            made.submit()
        assert made.seen == [1, 2, 3]


def test_a_held_task_raises_too_if_that_is_said() -> None:
    @task
    def moves_its_steps(ctx: Context) -> None:
        raise Held("the code has changed")

    with testing.eager(), pytest.raises(taskd.TaskHeld, match="the code has changed"):
        moves_its_steps.submit().result()
    with testing.eager(raises=True), pytest.raises(taskd.TaskHeld, match="the code has changed"):
        moves_its_steps.submit()


def test_an_interrupt_of_who_runs_the_tests_is_theirs(eager: None) -> None:
    @task
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted.submit()


def test_what_the_submitting_code_was_handling_is_no_part_of_the_error(eager: None) -> None:
    @task
    def chained() -> None:
        try:
            raise KeyError("inner")
        except KeyError:
            raise ValueError("outer")  # noqa: B904

    try:
        raise LookupError("of the test")
    except LookupError:
        handle = chained.submit()
    with pytest.raises(taskd.TaskFailed) as failed:
        handle.result()
    (note,) = failed.value.__notes__
    assert "KeyError: 'inner'" in note
    assert "of the test" not in note


def test_a_secret_is_masked(eager: None) -> None:
    @task
    def leaks(password: Secret[str]) -> None:
        raise RuntimeError(password.reveal())

    with pytest.raises(taskd.TaskFailed) as failed:
        leaks.submit(Secret("correct horse")).result()
    assert "correct horse" not in str(failed.value) + failed.value.__notes__[0]


def test_any_client_is_answered_and_stays_so(eager: None) -> None:
    add()
    old = Client("/elsewhere")
    assert old.submit("add", {"a": 1}).result() == 3
    with pytest.raises(taskd.BadArguments, match="add: `a` must be an int, not a str"):
        old.submit("add", {"a": "x"})
    with pytest.raises(taskd.UnknownTask, match="has a task 'ad'; did you mean add"):
        old.submit("ad")


def test_a_handle_of_the_block_never_reaches_a_daemon() -> None:
    made = add()
    outside = Client("/elsewhere")
    with testing.eager():
        handle = made.submit(1)
        by_name = Client("/elsewhere").submit("add", {"a": 2})
    assert (handle.result(), by_name.result()) == (3, 4)
    assert stand_in.current() is None
    with pytest.raises(taskd.NoDaemon):
        made.submit(1)
    with pytest.raises(taskd.NoDaemon):
        outside.task(handle.id)


def test_one_within_another_begins_anew() -> None:
    made = add()
    with testing.eager():
        handle = made.submit(1)
        with testing.eager(), pytest.raises(taskd.UnknownTask):
            Client().task(handle.id)
        assert Client().task(handle.id).state == "succeeded"


def test_a_task_may_submit_and_wait_for_others(eager: None) -> None:
    made = add()

    @task
    def parent(n: int) -> int:
        return sum(made.submit(each).result() for each in range(n))

    assert parent.submit(3).result() == 9


def test_a_task_that_waits_for_itself_is_refused(eager: None) -> None:
    @task
    def parent(ctx: Context) -> None:
        Client().wait([int(ctx.id)])

    with pytest.raises(taskd.TaskFailed, match="would wait for itself"):
        parent.submit().result()


def test_a_key_is_that_task_while_it_lives(eager: None) -> None:
    made = add()

    @task
    def again(ctx: Context, n: int) -> list[Any]:
        same = again.using(key="k").submit(n)
        with pytest.raises(taskd.KeyConflict, match="which has other arguments"):
            again.using(key="k").submit(n + 1)
        with pytest.raises(taskd.KeyConflict, match="which has another name"):
            made.using(key="k").submit(1)
        return [str(same.id) == ctx.id, same.status().state]

    first = again.using(key="k").submit(1)
    assert first.result() == [True, "running"]
    assert again.using(key="k").submit(1).id != first.id


def test_it_works_where_an_event_loop_runs(eager: None) -> None:
    @task
    async def doubles(ctx: AsyncContext, n: int) -> int:
        await asyncio.sleep(0)
        return 2 * n

    @task
    async def parent(n: int) -> int:
        return int(doubles.submit(n).result()) + 1

    async def use() -> list[Any]:
        client = AsyncClient()
        handle = await client.submit("doubles", {"n": 1})
        return [await handle.result(), parent.submit(2).result(), (await client.tasks())[0].name]

    assert asyncio.run(use()) == [2, 5, "doubles"]
    assert parent.submit(3).result() == 7


def test_sleeps_take_no_time_and_state_is_kept(eager: None) -> None:
    @task
    def sleeps(ctx: Context) -> list[Any]:
        ctx.state["seen"] = [*ctx.state.get("seen", []), ctx.attempt]
        ctx.sleep(86_400, "a day")
        (ctx.scratch / f"{ctx.attempt}").touch()
        return [ctx.state["seen"], sorted(each.name for each in ctx.scratch.iterdir())]

    handle = sleeps.submit()
    assert handle.result() == [[1, 2], ["2"]]
    assert handle.status().ran is not None


def test_a_failed_task_can_be_retried_and_an_ended_one_not_cancelled(eager: None) -> None:
    made = fails()
    handle = made.submit()
    assert handle.retry() == {"state": "queued"}
    assert made.seen == [1, 2, 3, 4, 5, 6]
    assert handle.cancel() == {"state": "failed", "was": "failed"}
    with pytest.raises(taskd.Refused, match="is succeeded; only a held, failed or cancelled task"):
        add().submit(1).retry()


@pytest.mark.parametrize(
    ("do", "what"),
    [
        (lambda made: made.using(delay=5).submit(1), "does not know delay"),
        (lambda made: made.using(queue="mails").submit(1), r"reads no taskd\.toml.*\['mails'\]"),
        (lambda made: Client().submit("command", {"argv": ["true"]}), "runs no programs"),
        (lambda made: Client().submit("add", {"a": 1}, options={}), "does not know options"),
        (lambda made: list(made.submit(1).follow()), "tells no events"),
        (lambda made: Client().log(made.submit(1).id), "has no daemon to ask for 'log'"),
        (lambda made: Client().status(), "has no daemon to ask for 'status'"),
        (lambda made: Client().reload(), "has no daemon to ask for 'reload'"),
    ],
)
def test_what_it_cannot_do_raises(eager: None, do: Any, what: str) -> None:
    made = add()
    with pytest.raises(NotEager, match=f"eager\\(\\) {what}.*taskd_daemon"):
        do(made)


def test_the_apps_hooks_run_as_in_one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    made, seen = fails(), []

    def note(event: str) -> Any:
        return lambda *told: seen.append((event, *(each.name for each in told[:1])))

    for event in hooks.registered:
        monkeypatch.setitem(hooks.registered, event, [note(event.removeprefix("on_"))])
    with testing.eager():
        made.using(retries=1).submit()
    around = [("task_start", "fails"), ("task_end", "fails")]
    assert seen == [("worker_start",), *around, *around, ("worker_stop",)]


def test_further_queues_may_be_named() -> None:
    made = add()
    with testing.eager(queues=["mails"]):
        assert made.using(queue="mails", delay=0).submit(1).status().queue == "mails"


def test_a_task_that_is_put_off_for_ever_ends_the_test(eager: None) -> None:
    @task
    def waits(ctx: Context) -> None:
        raise ctx.retry(after=1, counts=False)

    with pytest.raises(NotEager, match="makes 1000 attempts of a task at most"):
        waits.submit()


def test_what_comes_after_others_runs_as_their_ends_say() -> None:
    is_mended = False

    @task
    def fails() -> None:
        if not is_mended:
            raise ValueError("no")

    @task
    def adds(n: int) -> int:
        return n + 1

    with testing.eager():
        first = fails.submit()
        held = adds.using(after=first).submit(1)
        dropped = adds.using(after=first, if_failed="cancel").submit(2)
        ran = adds.using(after=[first, dropped], if_failed="run").submit(3)
        assert (held.status().state, dropped.status().state) == ("scheduled", "cancelled")
        assert ran.result() == 4
        is_mended = True
        first.retry()
        assert held.result() == 2


def test_a_child_is_run_at_once_and_once(eager: None) -> None:
    @task
    def leaf(n: int) -> int:
        ran.append(n)
        return n

    @task(retries=1, backoff=0)
    def parent(ctx: Context) -> int:
        made = ctx.submit(leaf.using(name="one"), 1)
        if ctx.attempt == 1:
            raise OSError("again")
        return int(made.result())

    ran: list[int] = []
    assert parent.submit().result() == 1
    assert ran == [1]


def test_a_timeout_ends_a_try_at_its_next_safe_point(eager: None) -> None:
    @task(timeout=0.05)
    def hangs(ctx: Context) -> None:
        while True:
            ctx.checkpoint()

    with pytest.raises(taskd.TaskFailed, match=r"ran for longer than its timeout of 0\.05s"):
        hangs.submit().result()
    with pytest.raises(taskd.TaskFailed, match=r"timeout of 0\.1s"):
        hangs.using(timeout=0.1).submit().result()
    assert add().using(timeout=60, expires=60).submit(1).result() == 3


def test_a_batch_and_what_follows_it(eager: None) -> None:
    plus = add()
    made = taskd.batch([plus.call(1), plus.using(queue="default").call(2, b=3)], then=plus.call(7))
    assert [each.result() for each in made.tasks] == [3, 5]
    assert made.then is not None
    assert made.then.result() == 9
    with pytest.raises(taskd.BadArguments):
        plus.call(c=1)
