"""What is around a task that runs in the process of its tests: a thread, and the environment."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

REVISION = "eager"


def apart(work: Callable[[], None]) -> None:
    """Do it in this thread, or in another one where an event loop runs here: no second one may run
    in a thread."""
    if asyncio._get_running_loop() is None:
        work()
        return
    raised: list[BaseException] = []

    def noted() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=contextvars.copy_context().run, args=(noted,))
    thread.start()
    thread.join()
    if raised:
        raise raised[0]


@contextmanager
def task_environment(task: int, attempt: int, scratch: str, socket: str) -> Iterator[None]:
    """The variables that a task has, for the block. ``socket``: where no daemon is, so that no
    program of the task's reaches one."""
    os.makedirs(scratch, 0o700, exist_ok=True)
    ours = {
        "TASKD_TASK_ID": str(task),
        "TASKD_ATTEMPT": str(attempt),
        "TASKD_REVISION": REVISION,
        "TASKD_SCRATCH": scratch,
        "TASKD_SOCKET": socket,
    }
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
