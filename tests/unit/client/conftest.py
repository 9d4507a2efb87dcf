"""The daemon of the clients' tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from client_daemon import Daemon


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon(str(tmp_path / "control.sock"), page=3)
    yield made
    made.stop()
