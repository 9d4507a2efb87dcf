"""Keys, priorities, limits, delays, retries and sleeps, measured by what the tasks did."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable

import pytest
from support.daemon import Daemon, Effect
from support.waiting import eventually

import taskd
from taskd.protocol import data

APP = """
import time
from taskd import task
from side import attempt, gate, mark

@task(queue="one")
def ordered(name: str) -> str:
    mark(name)
    if name == "first":
        gate("go")
    return name

def within():
    mark("begin")
    gate("go")
    mark("end")

@task(queue="two")
def two_at_a_time() -> None:
    within()

@task(queue="five")
def five_at_a_time() -> None:
    within()

@task(queue="unnamed")
def of_an_unnamed_queue() -> None:
    within()

@task(queue="one")
def waits_for_another() -> str:
    from taskd import Client
    child = Client().submit("ordered", {"name": "child"})
    mark(child.id)
    gate("go")
    return child.status().state

@task(retries=2, jitter=0)
def fails(times: int) -> str:
    mark(time.monotonic())
    if attempt() <= times:
        raise ValueError(f"attempt {attempt()}")
    return "in the end"

@task(retries=1)
def fails_in_a_loop(ctx) -> list:
    for i in ctx.each("items", range(4)):
        mark(i)
        if i == 2 and attempt() == 1:
            raise RuntimeError("once")
        ctx.state["seen"] = [*ctx.state.get("seen", []), i]
    return ctx.state["seen"]

@task(queue="one")
def naps(ctx, seconds: float) -> list:
    first = ctx.step("before", time.time)
    mark("before")
    ctx.sleep(seconds, "nap")
    mark("after")
    return [first, time.time()]

@task
def adds(a: int, b: int = 2) -> int:
    return a + b
"""

QUEUES = {
    "one": {"concurrency": 1},
    "two": {"concurrency": 2},
    "five": {"concurrency": 5},
    "default": {"concurrency": 3},
}


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    made = new_daemon(queues=QUEUES)
    return made.with_releases(APP, "r1").start()


def most_at_once(effects: list[Effect]) -> int:
    """The file is written in order: a begin adds one, an end takes one away."""
    now = most = 0
    for effect in effects:
        now += {"begin": 1, "end": -1}[effect.item]
        most = max(most, now)
    assert now == 0
    return most


# ── limits and order ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "limit"), [("two_at_a_time", 2), ("five_at_a_time", 5), ("of_an_unnamed_queue", 3)]
)
def test_a_queue_runs_as_many_at_once_as_it_may_and_never_more(
    daemon: Daemon, name: str, limit: int
) -> None:
    client = daemon.client()
    tasks = [client.submit(name) for _ in range(60)]
    eventually(lambda: len(daemon.effects()) >= limit, "as many as may begin")
    daemon.open_gate("go")
    client.wait([task.id for task in tasks], timeout=60)
    effects = daemon.effects()
    assert Counter(e.item for e in effects) == {"begin": 60, "end": 60}
    assert most_at_once(effects) == limit


def test_the_limit_holds_over_deploys_and_kills(daemon: Daemon) -> None:
    daemon.release("r2", APP)
    daemon.open_gate("go")
    client = daemon.client()
    tasks = [client.submit("two_at_a_time") for _ in range(60)]
    for name in ("r2", "r1"):
        daemon.reload(name)
    daemon.kill()
    daemon.start()
    daemon.reload("r2")
    client.wait([task.id for task in tasks], timeout=60)
    assert Counter(e.item for e in daemon.effects()) == {"begin": 60, "end": 60}
    assert most_at_once(daemon.effects()) <= 2


def test_higher_priorities_go_first_and_equal_ones_in_order_of_submission(
    daemon: Daemon,
) -> None:
    client = daemon.client()
    first = client.submit("ordered", {"name": "first"})
    daemon.reached(first.id, "first")
    wanted = [("b", 0), ("low", -5), ("top", 10), ("c", 0), ("high", 3), ("high-2", 3)]
    tasks = [client.submit("ordered", {"name": n}, priority=p) for n, p in wanted]
    daemon.open_gate("go")
    client.wait([task.id for task in tasks], timeout=30)
    done = [effect.item for effect in daemon.effects()]
    assert done == ["first", "top", "high", "high-2", "b", "c", "low"]


def test_a_task_may_be_submitted_to_another_queue(daemon: Daemon) -> None:
    client = daemon.client()
    blocker = client.submit("ordered", {"name": "first"})
    daemon.reached(blocker.id, "first")
    other = client.submit("ordered", {"name": "other"}, queue="two")
    assert other.result(30) == "other"
    assert other.status().queue == "two"
    daemon.open_gate("go")


# ── keys ─────────────────────────────────────────────────────────────────────────────────────


def test_a_key_gives_the_same_task_while_it_lives(daemon: Daemon) -> None:
    client = daemon.client()
    first = client.submit("ordered", {"name": "first"}, key="k")
    assert client.submit("ordered", {"name": "first"}, key="k").id == first.id
    with pytest.raises(taskd.KeyConflict):
        client.submit("ordered", {"name": "other"}, key="k")
    with pytest.raises(taskd.KeyConflict):
        client.submit("adds", {"a": 1}, key="k")
    daemon.open_gate("go")
    first.result(30)
    assert client.submit("ordered", {"name": "first"}, key="k").id != first.id


def test_many_submissions_of_one_key_at_once_make_one_task(daemon: Daemon) -> None:
    found: list[int] = []

    def submit() -> None:
        with daemon.client() as client:
            found.extend(client.submit("ordered", {"name": "first"}, key="k").id for _ in range(20))

    threads = [threading.Thread(target=submit) for _ in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(found) == 120
    assert len(set(found)) == 1
    daemon.open_gate("go")
    daemon.client().wait(found[:1], timeout=30)
    assert daemon.items(found[0]) == ["first"]


def test_a_key_lives_over_the_death_of_the_daemon(daemon: Daemon) -> None:
    client = daemon.client()
    task = client.submit("ordered", {"name": "first"}, key="k")
    daemon.kill()
    daemon.start()
    assert client.submit("ordered", {"name": "first"}, key="k").id == task.id
    daemon.open_gate("go")
    assert task.result(30) == "first"


# ── times ────────────────────────────────────────────────────────────────────────────────────


def test_a_delayed_task_does_not_begin_before_its_time(daemon: Daemon) -> None:
    client = daemon.client()
    task = client.submit("ordered", {"name": "late"}, delay=0.5)
    assert task.result(30) == "late"
    states = [event["state"] for event in task.follow()]
    assert states == ["scheduled", "queued", "running", "succeeded"]
    info = task.status()
    assert info.started is not None
    assert info.submitted is not None
    assert info.started - info.submitted >= 0.5


def test_delayed_tasks_run_after_a_restart_that_they_slept_through(daemon: Daemon) -> None:
    delayed = [
        {"submission": os.urandom(16), "name": "adds", "args": data.encode({"a": n}), "delay": 1.0}
        for n in range(100)
    ]
    with daemon.raw() as raw:  # at once: none is due before the stop
        tasks = [task["id"] for task in raw.ask("submit", tasks=delayed)["tasks"]]
    due = time.time() + 1.0
    assert daemon.stop() == 0
    eventually(lambda: time.time() > due, "they are due")
    daemon.start()
    found = daemon.client().wait(tasks, timeout=30)
    assert [info.result for info in found] == [n + 2 for n in range(100)]


def test_a_task_that_raises_is_tried_again_with_growing_pauses(daemon: Daemon) -> None:
    task = daemon.client().submit("fails", {"times": 2})
    assert task.result(30) == "in the end"
    assert task.status().attempt == 3
    times = [float(effect.item) for effect in daemon.effects(task.id)]
    assert times[1] - times[0] >= 1.0
    assert times[2] - times[1] >= 2.0
    reasons = [e["reason"] for e in task.follow() if e["reason"]]
    assert reasons == [
        "retry 1 of 2 after ValueError: attempt 1",
        "retry 2 of 2 after ValueError: attempt 2",
    ]


def test_a_task_that_uses_up_its_retries_fails_with_its_last_error(daemon: Daemon) -> None:
    task = daemon.client().submit("fails", {"times": 99})
    with pytest.raises(taskd.TaskFailed, match="ValueError: attempt 3") as caught:
        task.result(30)
    assert any("raise ValueError" in note for note in caught.value.__notes__)
    assert task.status().attempt == 3


def test_a_retry_continues_from_what_was_saved(daemon: Daemon) -> None:
    task = daemon.client().submit("fails_in_a_loop")
    assert task.result(30) == [0, 1, 2, 3]
    assert daemon.items(task.id) == ["0", "1", "2", "2", "3"]


def test_a_named_sleep_frees_the_worker_and_its_place_in_the_queue(daemon: Daemon) -> None:
    client = daemon.client()
    long = client.submit("naps", {"seconds": 3600})
    daemon.reached(long.id, "before")
    task = client.submit("naps", {"seconds": 2.5})
    behind = client.submit("ordered", {"name": "behind"})
    assert behind.result(30) == "behind"
    assert long.status().state == "scheduled"
    assert long.status().reason == "sleeping"
    before, after = task.result(30)
    assert after - before >= 2.5
    assert task.status().attempt == 2
    assert [(e.item, e.attempt) for e in daemon.effects(task.id)] == [
        ("before", 1), ("before", 2), ("after", 2),
    ]  # fmt: skip


# ── what is refused at submission ────────────────────────────────────────────────────────────


def test_unknown_names_and_arguments_that_do_not_bind_are_refused_at_once(
    daemon: Daemon,
) -> None:
    client = daemon.client()
    with pytest.raises(taskd.UnknownTask, match="did you mean ordered"):
        client.submit("order")
    with pytest.raises(taskd.BadArguments, match="a"):
        client.submit("adds", {"b": 1})
    with pytest.raises(taskd.BadArguments, match="c"):
        client.submit("adds", {"a": 1, "c": 1})
    assert client.tasks() == []


def test_a_thousand_quick_tasks_all_run_once(daemon: Daemon) -> None:
    with daemon.client() as client:
        tasks = [client.submit("adds", {"a": n}, queue="five") for n in range(1000)]
        infos = client.wait([task.id for task in tasks], timeout=60)
    assert [info.result for info in infos] == [n + 2 for n in range(1000)]
    assert {info.attempt for info in infos} == {1}


def test_a_task_that_another_one_of_its_full_queue_waits_for_says_so(
    daemon: Daemon,
) -> None:
    client = daemon.client()
    parent = client.submit("waits_for_another")
    begun = eventually(lambda: daemon.effects(parent.id), "it has submitted the other one")
    child = client.handle(int(begun[0].item))
    why = "waits for a place in queue 'one': tasks run in all of its places (1)"
    assert child.status().reason == why
    assert parent.status().reason is None
    daemon.open_gate("go")
    assert parent.result(30) == "queued"
    assert child.result(30) == "child"
    assert child.status().reason is None


def test_a_task_that_waits_for_any_place_at_all_says_so(
    new_daemon: Callable[..., Daemon],
) -> None:
    made = new_daemon(app={"max_workers": 1}, queues=QUEUES)
    made.with_releases(APP, "r1")
    client = made.start().client()
    first = client.submit("two_at_a_time")
    made.reached(first.id, "begin")
    second = client.submit("five_at_a_time")
    why = "waits for a place: as many tasks run as may at once (1)"
    assert second.status().reason == why
    made.open_gate("go")
    second.result(30)
