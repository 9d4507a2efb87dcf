"""What is asked of a task reaches its worker, whenever it is asked."""

from __future__ import annotations

import os

from bench import Bench


def test_what_is_asked_before_a_task_is_sent_follows_it_to_its_worker(bench: Bench) -> None:
    """The worker would forget a wish for an attempt that it does not have yet."""
    task = bench.submit(text="x" * 100_000)
    asked = bench.until(lambda: bench.zygote.of("fork"))[0]
    obstacle = os.path.join(bench.master.places.slots, f"{asked['worker'].hex()}.load")
    os.mkdir(obstacle)
    worker = bench.fork()
    bench.until(lambda: task in bench.master.attempts)
    bench.master.attempts.ask(task, "leave", "the daemon stops")
    bench.turn()
    assert not worker.of("leave")
    os.rmdir(obstacle)
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
