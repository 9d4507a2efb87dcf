"""Short storms, whole: a real daemon, real clients, every fault, and the checker's verdict.

Two seeds that are always the same, one of them on a busy machine, and a random one, over a store
that loses the answers of commits. The report shows its seed:
`python -m contrib.storm --lose 0.1 --seed SEED` repeats it.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

MINUTES = 0.5

LEAST = {
    "kill master": 3,
    "kill worker": 30,
    "kill all": 1,
    "kill zygote: done": 1,
    "stop ": 5,
    "deploy: ": 3,
    "bad release": 2,
    "cancel: ": 5,
    "cut connections": 5,
    "kill client": 1,
    "fill disk: done": 2,
}
"""What each storm must have done at least, by a part of the kind's name."""

LEAST_FIGURES = {
    "tasks succeeded": 40,
    "attempts cut off": 10,
    "queues with tasks": 8,
    "shapes of arguments": 15,
    "states of a MiB or more": 1,
}

MORE = ["cancel=20", "fill disk=5", "deploy=15", "deploy of a bad release=5", "kill all=2"]
"""Kinds that would be too rare in so short a storm."""


def storm(seed: str, busy: int, lose: float, folder: Path) -> tuple[dict[str, Any], str]:
    report = folder / "report.json"
    words = ["--seed", seed, "--minutes", str(MINUTES), "--report", os.fspath(report)]
    words += ["--busy", str(busy), "--lose", str(lose)]
    for rate in MORE:
        words += ["--rate", rate]
    ran = subprocess.run(
        [sys.executable, "-m", "contrib.storm", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert report.exists(), ran.stdout
    return json.loads(report.read_text()), ran.stdout


@pytest.mark.parametrize(
    ("seed", "busy", "lose"), [("1", 0, 0.0), ("2", 3, 0.0), ("a random one", 0, 0.1)]
)
@pytest.mark.usefixtures("compiled")
def test_nothing_is_lost_in_a_storm(seed: str, busy: int, lose: float, tmp_path: Path) -> None:
    seed = seed if seed.isdigit() else str(random.randrange(2**32))
    report, said = storm(seed, busy, lose, tmp_path)
    print(said)
    assert report["violations"] == []
    assert (report["done"]["lose the answer of a commit"] > 5) == (lose > 0)
    for part, least in LEAST.items():
        if part == "fill disk" and os.geteuid() != 0:
            continue  # no file system of its own
        assert sum(n for kind, n in report["done"].items() if part in kind) >= least, part
    for figure, least in LEAST_FIGURES.items():
        assert report["figures"][figure] >= least, figure
