"""What is around a task that runs in the process of its tests: a thread, and the environment."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable

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
