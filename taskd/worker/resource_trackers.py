"""Ends the resource trackers that a task has started (multiprocessing's, or a library's own).

Runs in workers. A tracker cleans up when the last process closes its pipe. At the end of an attempt
the worker, which goes on, has to close it.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

from taskd.posix import native, tree


def close_pipes() -> None:
    """Close this process's end of the pipe of each tracker that is its child. Python starts another
    tracker when it needs one again."""
    ours = tree.children()
    for name, module in list(sys.modules.items()):
        if name.rpartition(".")[2] != "resource_tracker":
            continue
        tracker: Any = getattr(module, "_resource_tracker", None)
        if not (hasattr(tracker, "_fd") and hasattr(tracker, "_pid")):
            continue
        if tracker._pid in ours and isinstance(tracker._fd, int):
            with suppress(OSError):  # the task has closed it
                native.close(tracker._fd)
            tracker._fd = tracker._pid = None
