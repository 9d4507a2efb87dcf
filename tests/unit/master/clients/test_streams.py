"""``follow`` and ``wait``: every event once, in order, whatever is committed meanwhile."""

from __future__ import annotations

from typing import Any

from bench import Bench, PlayedClient
from support.answers import Reading
from support.later.writers import SeveralWriters

from taskd.protocol.client_side import End, Item
from taskd.store.api import Cancel, Retry


def items(client: PlayedClient) -> list[dict[str, Any]]:
    return [event.fields for event in client.talk() if isinstance(event, Item)]


def numbers(client: PlayedClient) -> list[int]:
    return [item["event"] for item in items(client) if "event" in item]


def ended(client: PlayedClient) -> bool:
    return any(isinstance(event, End) for event in client.talk())


def history(bench: Bench, *tasks: int) -> list[int]:
    found = [
        e.number
        for task in tasks
        for e in Reading(bench.master.storage.reader).events([task], 0, 1000)
    ]
    return sorted(found)


def test_following_several_tasks_misses_no_event_that_is_committed_together(bench: Bench) -> None:
    """Two commits are done before the loop hears of the first: what is read for one task's sake
    must not pass over what another task's event says."""
    tasks = [bench.submit() for _ in range(3)]
    client = PlayedClient(bench)
    client.ask("follow", tasks=tasks)
    bench.until(lambda: len(numbers(client)) == 3)
    writer = bench.master.storage.writer
    for first, second in ((0, 1), (1, 2), (2, 0)):
        for index in (first, second, first):
            for change in (Cancel(tasks[index], None, 1.0), Retry(tasks[index], None, 2.0)):
                bench.master.storage.write(change, lambda _: None)
                assert writer.flush(30)
    bench.until(lambda: len(numbers(client)) >= len(history(bench, *tasks)))
    assert numbers(client) == history(bench, *tasks)


def test_following_over_several_writers_misses_and_repeats_nothing(bench: Bench) -> None:
    """The numbers of the events go up and down; the stream goes by the store's tokens."""
    storage = bench.master.storage
    tasks = [bench.submit() for _ in range(6)]
    storage.reader = SeveralWriters(storage.reader)  # type: ignore[assignment]
    client = PlayedClient(bench)
    client.ask("follow", tasks=tasks)
    for _ in range(5):
        for task in tasks:
            storage.write(Cancel(task, None, 1.0), lambda _: None)
            storage.write(Retry(task, None, 2.0), lambda _: None)
        assert storage.writer.flush(30)
        bench.until(lambda: len(numbers(client)) == len(history(bench, *tasks)))
    for task in tasks:
        own = [item["event"] for item in items(client) if item["task"] == task]
        assert own == history(bench, task)
    assert numbers(client) != history(bench, *tasks), "they were told in another order"


def test_progress_of_a_task_whose_end_is_just_committed_ends_the_stream_alone(
    bench: Bench,
) -> None:
    """The store has the end before the loop hears of it; the stream is over then."""
    task = bench.submit()
    worker = bench.fork()
    order = bench.run(worker)
    report = {"task": task, "attempt": 1, "done": 1, "total": 2, "note": ""}
    worker.send({"type": "progress"} | report)
    bench.until(lambda: bench.master.attempts.get(task).progress)  # type: ignore[union-attr]
    client = PlayedClient(bench)
    bench.until(client.talk)
    bench.end(worker, order)
    completions = bench.master.storage.writer.completions
    bench.master.storage.writer.completions = lambda: 0  # type: ignore[method-assign]
    try:
        bench.until(
            lambda: Reading(bench.master.storage.reader).task(task).state.value == "succeeded"
        )  # type: ignore[union-attr]
        client.ask("follow", tasks=[task], progress=True)
        bench.until(lambda: ended(client))
    finally:
        bench.master.storage.writer.completions = completions  # type: ignore[method-assign]
    completions()
    assert numbers(client) == history(bench, task)


def test_a_wait_gives_each_task_once_it_is_settled(bench: Bench) -> None:
    tasks = [bench.submit() for _ in range(2)]
    client = PlayedClient(bench)
    client.ask("wait", tasks=tasks)
    bench.until(client.talk)
    for task in reversed(tasks):
        bench.master.storage.write(Cancel(task, None, 1.0), lambda _: None)
    bench.until(lambda: ended(client))
    assert [item["task"]["id"] for item in items(client)] == tasks[::-1]


def test_with_many_streams_on_a_task_others_are_answered_in_between(bench: Bench) -> None:
    """One commit that concerns thousands of streams is told to them in many turns."""
    task = bench.submit()
    followers = [PlayedClient(bench) for _ in range(4)]
    for client in followers:
        for _ in range(200):
            client.ask("follow", tasks=[task])
    bench.until(lambda: all(len(numbers(client)) == 200 for client in followers))
    modest = PlayedClient(bench)
    bench.until(modest.talk)
    bench.master.storage.write(Cancel(task, None, 1.0), lambda _: None)
    assert bench.master.storage.writer.flush(30)
    modest.ask("status")
    bench.until(lambda: len(modest.talk()) == 2)
    streams = bench.master.streams
    assert sum(len(streams.of(each)) for each in bench.master.clients) > 400, "still to be told"
    bench.until(lambda: all(sum(isinstance(e, End) for e in c.talk()) == 200 for c in followers))
    assert all(len(numbers(client)) == 400 for client in followers)
