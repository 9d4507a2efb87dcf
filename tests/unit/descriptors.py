"""The descriptors that the test's process has open, to be compared before and after."""

from __future__ import annotations

import gc
import os


def descriptors() -> set[int]:
    """Their numbers. What waits to be collected goes first: other tests' loops and masters are
    reference cycles, and a collection between two looks would close what they had open."""
    gc.collect()
    found = {int(name) for name in os.listdir("/proc/self/fd")}
    return {fd for fd in found if os.path.exists(f"/proc/self/fd/{fd}")}  # not the listing's own
