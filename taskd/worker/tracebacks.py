"""What a task's log says of its end: the traceback of a crash by a signal, and that of a failure.

Runs in a worker.
"""

from __future__ import annotations

import faulthandler
import os
from contextlib import suppress

from taskd.model.task import COMMAND
from taskd.posix import native
from taskd.worker import output
from taskd.worker.control import Order


def of_crashes() -> None:
    """From now on a segmentation fault and its like (SIGABRT, SIGBUS, SIGFPE, SIGILL) leaves the
    Python frames of all threads on descriptor 2, and then ends the process as before."""
    faulthandler.disable()  # what the app's import enabled lost its handlers when we began
    faulthandler.enable(2)


def of_failure(order: Order, error: dict[str, str] | None) -> None:
    """Write the traceback of what ended the task, free of its secrets, to the end of its log. A
    program's own output says why it failed."""
    if error is None or order.name == COMMAND:
        return
    output.flush()
    with suppress(OSError):  # it is in the store as well
        log = output.open_log(order.log)
        try:
            os.write(log, error["traceback"].encode())
        finally:
            native.close(log)
