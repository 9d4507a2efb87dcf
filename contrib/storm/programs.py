"""What a program of a submission must come to. Pure; see ``workload``."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any


def items(program: list[list[Any]], at: str = "") -> Iterator[str]:
    """The paths of all its items, in the order of their ends."""
    for kind, *given in program:
        if kind == "each":
            name, count, _, body = given
            for number in range(count):
                path = f"{at}{name}/{number}"
                yield from items(body, path + "/")
                yield path


def outer_steps(program: list[list[Any]]) -> list[str]:
    """The names of the steps that stand outside of all loops."""
    return [given[0] for kind, *given in program if kind == "step"]


def total(program: list[list[Any]]) -> int:
    """The sum over its items that its result must have."""
    found = 0
    for path in items(program):
        found = zlib.crc32(path.encode(), found)
    return found


def is_doomed(program: list[list[Any]]) -> bool:
    return any(move[0] == "fail" for move in program)
