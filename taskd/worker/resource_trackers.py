"""Resource trackers that a task has started, by multiprocessing or a library that has its own.

Runs in workers. A tracker cleans up once nobody holds its pipe any more: at the end of an attempt
that is this process, which goes on.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from taskd.posix import native, tree


def let_go() -> None:
    """Close our ends of the pipes of those that are our children. Python starts another tracker
    when one is needed again."""
    ours = tree.children()
    for tracker in _trackers():
        if tracker._pid in ours and isinstance(tracker._fd, int):
            with suppress(OSError):  # the task has closed it
                native.close(tracker._fd)
            tracker._fd = tracker._pid = None


def _trackers() -> Iterator[Any]:
    for name, module in list(sys.modules.items()):
        if name.rpartition(".")[2] == "resource_tracker":
            tracker = getattr(module, "_resource_tracker", None)
            if hasattr(tracker, "_fd") and hasattr(tracker, "_pid"):
                yield tracker
