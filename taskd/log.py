"""The daemon's own log: one line per transition on stderr, with fields.

Runs in the master. A line is written with one system call, nothing is buffered: an exec loses no
line. ``task= attempt= worker= revision=`` name what the line is about.
"""

from __future__ import annotations

import os
import time
from typing import Any


def _line(level: str, text: str, fields: dict[str, Any]) -> None:
    text = text if text.isprintable() else repr(text)[1:-1]  # what others say stays one line
    shown = "".join(f" {key}={_value(value)}" for key, value in fields.items())
    stamp = "" if "JOURNAL_STREAM" in os.environ else time.strftime("%H:%M:%S ")
    try:
        os.write(2, f"{stamp}{level}{text}{shown}\n".encode(errors="replace"))
    except OSError:
        return  # nowhere to write to: the daemon goes on


def _value(value: Any) -> str:
    text = value.hex()[:8] if isinstance(value, bytes) else str(value)
    return text if text.isprintable() and text and " " not in text else repr(text)


def lines(text: str) -> None:
    """What belongs to the line before: a traceback, say."""
    for line in text.rstrip().splitlines():
        _line("  ", line, {})


def info(text: str, **fields: Any) -> None:
    _line("", text, fields)


def warning(text: str, **fields: Any) -> None:
    _line("warning: ", text, fields)


def error(text: str, **fields: Any) -> None:
    _line("error: ", text, fields)
