"""A busy machine: loops beside a storm that take what time they get."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

LOOP = "import os; parent = os.getppid()\nwhile os.getppid() == parent: pass"
"""Ends by itself if whoever started it is killed."""


@contextmanager
def loops(number: int) -> Iterator[None]:
    """So many of them, until the end of the body."""
    started = [subprocess.Popen([sys.executable, "-c", LOOP]) for _ in range(number)]
    try:
        yield
    finally:
        for each in started:
            each.kill()
            each.wait()
