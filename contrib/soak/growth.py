"""Whether anything grew that should not. Pure.

The rule is plain: the median of the last quarter of all samples against that of the second quarter
(the first is for warming up). What grows with the history that is kept, the store and the tasks'
logs, is looked at for each task.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import median
from typing import NamedTuple

from contrib.soak.sampling import Sample

FACTOR = 1.15
"""More than this many times as much is growth …"""

MIB = float(1 << 20)


class Figure(NamedTuple):
    """One thing that is watched. ``slack``: … if it is also this much more: what comes and goes
    with the work at hand."""

    name: str
    unit: str
    of: Callable[[Sample], float]
    slack: float


FIGURES = (
    Figure("descriptors", "", lambda s: s.descriptors, 16),
    Figure("memory", "MiB", lambda s: s.memory / MIB, 6),
    Figure("threads", "", lambda s: s.threads, 1),
    Figure("children", "", lambda s: s.children, 4),
    Figure("store for each task", "KiB", lambda s: s.store / 1024 / max(s.tasks, 1), 2),
    Figure("write-ahead log", "MiB", lambda s: s.log_ahead / MIB, 4),
    Figure("slots", "MiB", lambda s: s.slots / MIB, 2),
    Figure("logs for each task", "KiB", lambda s: s.logs / 1024 / max(s.tasks, 1), 2),
)


class Row(NamedTuple):
    """One figure: its medians by quarter, its highest, and whether it grew."""

    name: str
    unit: str
    quarters: tuple[float, float, float, float]
    highest: float
    grew: bool


def judge(samples: Sequence[Sample]) -> list[Row]:
    """A row for each figure. Raises ValueError for fewer than 8 samples, which tell nothing."""
    if len(samples) < 8:
        raise ValueError(f"{len(samples)} samples are too few to tell growth: soak for longer")
    return [_row(figure, samples) for figure in FIGURES]


def _row(figure: Figure, samples: Sequence[Sample]) -> Row:
    values = [figure.of(sample) for sample in samples]
    cuts = [len(values) * quarter // 4 for quarter in range(5)]
    first, second, third, last = (median(values[begin:end]) for begin, end in pairwise(cuts))
    grew = last > second * FACTOR and last - second > figure.slack
    return Row(figure.name, figure.unit, (first, second, third, last), max(values), grew)


def table(rows: Sequence[Row]) -> str:
    """As Markdown."""
    text = [
        "| median of | 1st quarter | 2nd | 3rd | 4th | highest | |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for row in rows:
        name = f"{row.name} ({row.unit})" if row.unit else row.name
        cells = [f"{value:,.1f}" for value in (*row.quarters, row.highest)]
        text.append(f"| {name} | {' | '.join(cells)} | {'GREW' if row.grew else ''} |")
    return "\n".join(text) + "\n"
