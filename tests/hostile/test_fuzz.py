"""Everything that reads bytes, given bytes that are nearly right: read, or refused as promised.

The targets are those of ``python -m contrib.fuzz``, which goes on for as long as one likes.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings, strategies as st

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from contrib.fuzz.mutate import mutated  # noqa: E402
from contrib.fuzz.targets import TARGETS  # noqa: E402


@pytest.mark.parametrize("name", TARGETS)
def test_what_was_recorded_is_read(name: str) -> None:
    for sample in TARGETS[name].samples:
        TARGETS[name].run(sample)


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=100)
@given(st.binary(max_size=300))
def test_noise_is_read_or_refused(name: str, raw: bytes) -> None:
    TARGETS[name].run(raw)


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=400)
@given(st.randoms(use_true_random=False))
def test_what_is_nearly_right_is_read_or_refused(name: str, random: Random) -> None:
    TARGETS[name].run(mutated(TARGETS[name].samples, random))


def test_the_fuzzer_runs_without_its_engine(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "contrib.fuzz", "--random", "--runs", "20", "--seed", "1"]
    ran = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert lines == [f"{name}: 20 runs with --seed 1, nothing found" for name in TARGETS]
