"""These tests parse the whole package, and no destructor runs meanwhile.

CPython before 3.12 fails in ast.parse ("AST constructor recursion depth mismatch") if the collector
runs Python code within it (python/cpython#106905): of what an earlier test of the same process has
left, a task of asyncio with an exception, say.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def nothing_is_collected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()
