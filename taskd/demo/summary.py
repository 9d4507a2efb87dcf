"""The demo's last page: a table of the tasks, three lines of figures, one line of conclusion.

Pure: figures in, lines out.
"""

from __future__ import annotations

from collections.abc import Sequence

from taskd.cli.output import text
from taskd.cli.output.text import Column, Look
from taskd.demo.judge import Row
from taskd.record import Record

_COLUMNS = (
    Column("TASK", right=True),
    Column("NAME"),
    Column("ON DEPLOY"),
    Column("RAN ON"),
    Column("FILES", right=True),
    Column("REPEATED", right=True),
    Column("RESULT"),
)


class Figures(Record):
    """What was measured beside the tasks. Times in seconds.

    ``pid``: the daemon's. ``pause``: as the daemon says; ``longest`` and ``usual``: of the
    ``pings`` around it, as they were answered. ``kept``: connections that were open over it.
    ``problems``: what went wrong that belongs to no task.
    """

    pid: int
    pause: float
    pings: int
    longest: float
    usual: float
    kept: int
    dropped: int
    events: int
    took: float
    problems: Sequence[str]


def problems(rows: Sequence[Row], figures: Figures) -> list[str]:
    """Everything that is not as it should be, a sentence each."""
    found = [f"task {r.expected.task}: {why}" for r in rows for why in r.problems]
    if figures.dropped:
        found.append(f"{figures.dropped} connections dropped")
    if not figures.pings:
        found.append("no ping was answered during the deploy")
    return [*found, *figures.problems]


def lines(rows: Sequence[Row], figures: Figures, look: Look) -> list[str]:
    """The whole page."""
    table = text.table(_COLUMNS, [_cells(row) for row in rows], look.width - 1)
    return [*table, "", *_figures(rows, figures), "", *_conclusion(rows, figures, look)]


def _cells(row: Row) -> list[str]:
    return [
        str(row.expected.task),
        row.expected.name,
        row.expected.on_deploy,
        ", ".join(f"{name}: {count}" for name, count in row.ran.items()) or "none",
        f"{row.done}/{len(row.expected.items)}",
        str(row.repeated),
        "same" if row.is_right else "WRONG",
    ]


def _figures(rows: Sequence[Row], figures: Figures) -> list[str]:
    """At most 79 columns each: a terminal of the usual width shows them whole."""
    done = sum(row.done for row in rows)
    moved = sum(len(row.ran) > 1 for row in rows)
    return [
        f"{done} files done by {len(rows)} tasks, counted outside the daemon: what works on a",
        "file first appends a line to a common file. Results were compared with those",
        "of plain loops that know no deploy, no steps and no saved state.",
        "",
        f"deploy       {moved} tasks moved to the new code at their next file, none else",
        f"connections  {figures.kept} open over the deploy, {figures.dropped} dropped; "
        f"{figures.events} events followed, each once",
        f"pause        {_ms(figures.pause)}, says the daemon (pid {figures.pid}, before and after)",
        f"             {_ms(figures.longest)}, the longest of {figures.pings} pings around it "
        f"(usually {_ms(figures.usual)})",
    ]


def _conclusion(rows: Sequence[Row], figures: Figures, look: Look) -> list[str]:
    wrong = problems(rows, figures)
    if not wrong:
        good = f"Nothing was lost, repeated or wrong. It took {figures.took:.0f} seconds."
        return [text.coloured(good, "succeeded", look)]
    bad = "Something was lost, repeated or wrong:"
    return [text.coloured(bad, "failed", look), *(f"  {text.clean(why)}" for why in wrong)]


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"
