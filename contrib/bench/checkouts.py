"""This checkout and another one, as directories whose code a Python can be told to run."""

from __future__ import annotations

import io
import os
import statistics
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

HERE = os.fspath(Path(__file__).parents[2])


class Cost(NamedTuple):
    """Seconds of a piece of work: of the CPU, and by the clock."""

    cpu: float
    wall: float


def exported(commit: str, into: str) -> str:
    """The tree of that commit (or the directory that is named); its path."""
    if os.path.isdir(commit):
        return os.path.abspath(commit)
    packed = subprocess.run(
        ["git", "-C", HERE, "archive", commit], stdout=subprocess.PIPE, check=True
    ).stdout
    path = os.path.join(into, "older")
    with tarfile.open(fileobj=io.BytesIO(packed)) as tree:
        tree.extractall(path, filter="data")
    return path


def environment(checkout: str, **more: str) -> dict[str, str]:
    """In which a Python runs the code of ``checkout``, and compiles it once for all."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("TASKD_", "PYTHON"))}
    return clean | {"PYTHONPATH": checkout} | more


def ratio(name: str, older: Sequence[Cost], newer: Sequence[Cost], count: int) -> str:
    """A line of the table: the least CPU time of the rounds, the median of the wall times."""
    cpu = [min(cost.cpu for cost in costs) for costs in (older, newer)]
    wall = [statistics.median(cost.wall for cost in costs) for costs in (older, newer)]
    each = [f"{seconds / count * 1e6:9.1f}" for seconds in (*cpu, *wall)]
    return (
        f"{name:34} CPU {each[0]} → {each[1]} µs = {cpu[1] / cpu[0]:.2f}"
        f"   wall {each[2]} → {each[3]} µs = {wall[1] / wall[0]:.2f}"
    )


def told(lines: Mapping[str, tuple[Sequence[Cost], Sequence[Cost], int]]) -> None:
    for name, (older, newer, count) in lines.items():
        print(ratio(name, older, newer, count), flush=True)
