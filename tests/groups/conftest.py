"""Where this machine's kernel cannot limit memory and processes, ``test_limits`` is left to
``test_other_kernel``, which runs it on one that can."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.groups import can_limit, mounted

LIMITS = Path(__file__).parent / "test_limits.py"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    theirs = [item for item in items if item.path == LIMITS]
    if theirs and not _is_able():
        items[:] = [item for item in items if item.path != LIMITS]
        config.hook.pytest_deselected(items=theirs)


def _is_able() -> bool:
    try:
        return can_limit(mounted())
    except pytest.skip.Exception:
        return False
