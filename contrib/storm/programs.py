"""What a program of a submission must come to. Pure; see ``workload``."""

from __future__ import annotations

import random
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


def held(program: list[list[Any]]) -> int:
    """How many bytes its state must have besides."""
    return sum(given[0] for kind, *given in program if kind == "hold")


def held_sum(program: list[list[Any]]) -> int:
    """The sum over these bytes that its result must have."""
    return zlib.crc32(ballast(held(program)))


def ballast(size: int) -> bytes:
    """Bytes that no other size begins with."""
    return random.Random(size).randbytes(size)


def is_doomed(program: list[list[Any]]) -> bool:
    return any(move[0] == "fail" for move in program)
