"""The variables that a task and its programs find."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def task_environment(
    task: int, attempt: int, revision: str, scratch: str, sockets: str
) -> Iterator[None]:
    """Set them for the block. Afterwards each has its former value: the app may have set one of
    them at import. ``sockets``: where the task's programs look for the daemon."""
    ours = {
        "TASKD_TASK_ID": str(task),
        "TASKD_ATTEMPT": str(attempt),
        "TASKD_REVISION": revision,
        "TASKD_SCRATCH": scratch,
        "TASKD_SOCKET": sockets,
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
