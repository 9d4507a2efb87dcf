"""contrib/bench, small: its parts run to their ends. What they measure is nothing to a test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_figures_of_the_store_come_to_an_end() -> None:
    small = ["--many", "2000", "--tasks", "40", "--rounds", "1", "--against", str(ROOT)]
    ran = subprocess.run(
        [sys.executable, "-m", "contrib.bench.store", *small],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    for line in ("submit", "drain", "store: claim", "unfit", "memory", "Listed", "NextDue"):
        assert line in ran.stdout
