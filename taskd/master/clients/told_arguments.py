"""A task's arguments as people recognise it by them: short, on one line, and without secrets.

Pure. The daemon makes the text: what a Secret holds leaves it by no request.
"""

from __future__ import annotations

import shlex
from typing import Any

from taskd.errors import ProtocolError
from taskd.model.task import COMMAND
from taskd.protocol import data
from taskd.protocol.secret import SHOWN, Secret

LONGEST = 1000
"""Characters in all …"""

LONGEST_VALUE = 200
"""… and of one argument."""


def in_words(name: str, args: bytes | int) -> str:
    """``path='a.csv', n=3``; of a program its command line. A number: there are so many bytes."""
    if isinstance(args, int):
        return f"({args:,} bytes)"
    try:
        values = data.decode(args)
    except ProtocolError:
        return "(they are damaged)"
    if not isinstance(values, dict):
        return "(they are damaged)"
    argv = values.get("argv") if name == COMMAND else None
    if isinstance(argv, list):
        text = " ".join(_word(each) for each in argv)
    else:
        text = ", ".join(f"{key}={_value(value)}" for key, value in values.items())
    return _cut(text, LONGEST)


def _word(value: Any) -> str:
    return shlex.quote(value) if isinstance(value, str) else _value(value)


def _value(value: Any) -> str:
    return SHOWN if isinstance(value, Secret) else _cut(repr(value), LONGEST_VALUE)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 2] + ".."
