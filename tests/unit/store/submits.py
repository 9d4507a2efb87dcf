"""New tasks for the tests of the SQLite store."""

from __future__ import annotations

import os
from typing import Any

from taskd.store.api import Submit


def new(**fields: Any) -> Submit:
    made = Submit(os.urandom(16), 1, "t", 1, b"args", "x", "q", 0, None, None, 0, None, 1.0)
    return made._replace(**fields)
