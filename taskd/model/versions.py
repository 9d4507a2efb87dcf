"""Which versions of saved state a task's code can take, and which of two taskds is older.

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


def is_older(taskd: str, than: str) -> bool:
    """Whether version ``taskd`` of taskd came before ``than``; False if that cannot be told."""
    parts, others = _numbers(taskd), _numbers(than)
    return bool(parts and others) and parts < others


def _numbers(version: str) -> list[int]:
    """The whole numbers at its beginning: of 0.2.1rc1 (or 0.2.dev3) 0 and 2."""
    found = []
    for part in version.split("."):
        if not (part.isascii() and part.isdigit()):
            break
        found.append(int(part))
    return found
