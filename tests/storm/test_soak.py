"""The soak's rule finds what grows, and its samples are of the daemon that runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from contrib.soak.growth import FIGURES, judge
from contrib.soak.sampling import Sample

ROOT = Path(__file__).parents[2]

QUIET = Sample(0.0, 24, 20 << 20, 2, 3, 4 << 20, 1 << 20, 1 << 20, 1 << 20, 1000)


def over_time(**growth: float) -> list[Sample]:
    """A hundred samples; each named field grows by so much from one to the next."""
    return [
        QUIET._replace(**{name: getattr(QUIET, name) + by * n for name, by in growth.items()})
        for n in range(100)
    ]


def grown(samples: list[Sample]) -> set[str]:
    return {row.name for row in judge(samples) if row.grew}


def test_nothing_grows_where_all_stays_as_it_is() -> None:
    assert grown(over_time()) == set()


@pytest.mark.parametrize(
    ("field", "by", "name"),
    [
        ("descriptors", 1, "descriptors"),
        ("memory", 1 << 18, "memory"),
        ("threads", 0.1, "threads"),
        ("children", 0.2, "children"),
        ("store", 1 << 17, "store for each task"),
        ("log_ahead", 1 << 18, "write-ahead log"),
        ("slots", 1 << 17, "slots"),
        ("logs", 1 << 17, "logs for each task"),
    ],
)
def test_each_figure_that_grows_is_found(field: str, by: float, name: str) -> None:
    assert grown(over_time(**{field: by})) == {name}


def test_every_figure_is_tested() -> None:
    assert len(FIGURES) == 8


def test_a_store_that_grows_with_its_tasks_is_right() -> None:
    assert grown(over_time(store=4 << 10, logs=1 << 10, tasks=1)) == set()


def test_too_few_samples_tell_nothing() -> None:
    with pytest.raises(ValueError, match="soak for longer"):
        judge([QUIET] * 7)


@pytest.mark.usefixtures("compiled")
def test_a_soak_of_seconds_shows_the_figures_of_a_real_daemon(tmp_path: Path) -> None:
    report = tmp_path / "report.md"
    words = ["--hours", "0.002", "--every", "0.3", "--seed", "5", "--report", os.fspath(report)]
    ran = subprocess.run(
        [sys.executable, "-m", "contrib.soak", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert report.exists(), ran.stdout + ran.stderr
    text = report.read_text()
    assert "**0 violations**" in text
    rows = {row.split(" | ")[0].lstrip("| "): row.split(" | ") for row in text.splitlines()}
    assert float(rows["descriptors"][2]) > 5
    assert float(rows["memory (MiB)"][2]) > 5
    assert float(rows["children"][2]) >= 1
    assert float(rows["store for each task (KiB)"][4]) > 0
