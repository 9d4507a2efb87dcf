"""What is asked of a task reaches its worker, whenever it is asked."""

from __future__ import annotations

from bench import Bench


def test_what_is_asked_while_the_claim_is_on_its_way_follows_the_task_to_its_worker(
    bench: Bench,
) -> None:
    """A stop comes just then: the worker would forget a wish for an attempt that it has not."""
    task = bench.submit()
    worker = bench.fork()
    bench.until(lambda: task in bench.master.attempts)
    running = bench.master.attempts.get(task)
    assert running is not None
    assert running.attempt == 0, "the claim is still on its way"
    bench.master.attempts.ask(task, "leave", "the daemon stops")
    bench.until(lambda: worker.of("run"))
    bench.until(lambda: worker.of("leave"))
    kinds = [message["type"] for message in worker.seen if message["type"] in ("run", "leave")]
    assert kinds == ["run", "leave"]
    (asked,) = worker.of("leave")
    assert (asked["task"], asked["attempt"], asked["why"]) == (task, 1, "the daemon stops")


def test_what_is_asked_of_a_running_task_is_told_once(bench: Bench) -> None:
    task = bench.submit()
    worker = bench.fork()
    bench.run(worker)
    bench.master.attempts.ask(task, "leave", "the daemon stops")
    bench.until(lambda: worker.of("leave"))
    assert len(worker.of("leave")) == 1
