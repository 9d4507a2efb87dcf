"""The tasks of a shop: one that sends a letter to each of many customers."""

from __future__ import annotations

import time

from taskd import Context, task


@task(queue="letters", on_deploy="checkpoint")
def send_letters(ctx: Context, first: int, last: int, pause: float = 0.5) -> int:
    """Send a letter to the customers from ``first`` to before ``last``; returns how many.

    At a deploy it leaves when it asks for the next name, and goes on there in the new code.
    """
    names = ctx.step("names", find_names, first, last)  # not run again once its result is kept
    for name in ctx.each("letters", names):  # asking for the next one saves where it is
        ctx.sleep(pause)  # the task may leave here: behind send() that letter would go twice
        send(name)
        ctx.state["sent"] = ctx.state.get("sent", 0) + 1  # local variables do not survive a move
    return int(ctx.state.get("sent", 0))


@task(queue="letters")
def thank(name: str) -> None:
    """A task may be an ordinary function. It finishes on the code that it began with."""
    time.sleep(1)
    print("thanked", name)


def find_names(first: int, last: int) -> list[str]:
    """As if from a database that may say something else tomorrow."""
    return [f"customer {number}" for number in range(first, last)]


def send(name: str) -> None:
    """What is printed goes to the task's log."""
    print("sent a letter to", name)
