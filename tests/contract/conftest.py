"""The store of a test, of each kind and in both ways."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from stores import STORES

from taskd.store import writer

ROOT = str(Path(__file__).parents[2])

if ROOT not in sys.path:
    sys.path.insert(0, ROOT)  # for contrib

from contract_bench import WAYS, Bench  # noqa: E402


@pytest.fixture(params=[f"{name}, {way}" for name in STORES for way in WAYS])
def bench(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Bench]:
    monkeypatch.setattr(writer, "_AGAIN", 0.001)
    name, _, way = request.param.partition(", ")
    made = Bench(STORES[name], os.fspath(tmp_path), WAYS[way])
    yield made
    made.close()
