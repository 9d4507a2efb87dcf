"""Which versions of saved state a task's code can take.

Pure.
"""

from __future__ import annotations

from collections.abc import Container


def readable(version: int, migrations: Container[int]) -> list[int]:
    """``version``, and every earlier one from which an unbroken chain of migrations leads to it.

    ``migrations``: the versions whose state a migration takes to the next one.
    """
    lowest = version
    while lowest - 1 in migrations:
        lowest -= 1
    return list(range(lowest, version + 1))
