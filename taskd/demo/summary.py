"""The demo's last page: a table of the tasks, three lines of figures, one line of conclusion.

Pure: figures in, lines out.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from taskd.cli.output import text
from taskd.cli.output.text import Column, Look
from taskd.demo.judge import Row

_COLUMNS = (
    Column("TASK", right=True),
    Column("NAME"),
    Column("ON DEPLOY"),
    Column("RAN ON"),
    Column("FILES", right=True),
    Column("REPEATED", right=True),
    Column("RESULT"),
)


def problems(
    rows: Sequence[Row], others: Sequence[str], pings: Sequence[float], dropped: int
) -> list[str]:
    """What is not as it should be, a sentence each. ``others``: what belongs to no task."""
    found = [f"task {row.task}: {why}" for row in rows for why in row.problems]
    if dropped:
        found.append(f"{dropped} connections dropped")
    if not pings:
        found.append("no ping was answered during the deploy")
    return [*found, *others]


def lines(
    rows: Sequence[Row],
    wrong: Sequence[str],
    look: Look,
    *,
    pid: int,
    pause: float,
    pings: Sequence[float],
    kept: int,
    dropped: int,
    events: int,
    took: float,
) -> list[str]:
    """The whole page; what is no table has at most 79 columns. Times in seconds.

    ``wrong``: the problems. ``pause``: as the daemon says; ``pings``: how long each took around
    it. ``kept``: connections that were open over it.
    """
    cells = [
        [
            str(row.task),
            row.work.title,
            row.work.on_deploy,
            ", ".join(f"{name}: {count}" for name, count in row.ran.items()) or "none",
            f"{row.done}/{len(row.work.files)}",
            str(row.repeated),
            "same" if row.is_right else "WRONG",
        ]
        for row in rows
    ]
    done = sum(row.done for row in rows)
    moved = sum(len(row.ran) > 1 for row in rows)
    longest, usual = max(pings, default=0.0), statistics.median(pings or [0.0])
    good = f"Nothing was lost, repeated or wrong. It took {took:.0f} seconds."
    bad = "Something was lost, repeated or wrong:"
    return [
        *text.table(_COLUMNS, cells, look.width - 1),
        "",
        f"{done} files done by {len(rows)} tasks, counted outside the daemon: what works on a",
        "file first appends a line to a common file. Results were compared with those",
        "of plain loops that know no deploy, no steps and no saved state.",
        "",
        f"deploy       {moved} tasks moved to the new code at their next file, none else",
        f"connections  {kept} open over the deploy, {dropped} dropped; "
        f"{events} events followed, each once",
        f"pause        {_ms(pause)}, says the daemon (pid {pid}, before and after)",
        f"             {_ms(longest)}, the longest of {len(pings)} pings around it "
        f"(usually {_ms(usual)})",
        "",
        text.coloured(bad, "failed", look) if wrong else text.coloured(good, "succeeded", look),
        *(f"  {text.clean(why)}" for why in wrong),
    ]


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"
