"""What is kept of an exception that ended a task: {type, message, traceback}, all text, bounded.

Runs in workers and in tests. The traceback shows the task's code; taskd's own frames are left out.

Invariant: nothing escapes from here. An exception is the app's own object: its ``__str__``, its
class's name and what it is chained to are code that may raise whatever it likes.
"""

from __future__ import annotations

import os
import traceback
from itertools import dropwhile

MESSAGE_LIMIT = 8 * 1024
TRACEBACK_LIMIT = 64 * 1024
LINE_LIMIT = 500
"""Bytes. Of what is longer, the middle is left out: the causes and the last line say the most."""

_TASKD = os.path.dirname(os.path.dirname(__file__)) + os.sep
_OURS = (_TASKD + "worker" + os.sep, _TASKD + "protocol" + os.sep, _TASKD + "tasks.py")
_ASYNCIO = os.path.dirname(os.__file__) + os.sep + "asyncio" + os.sep


def describe(exception: BaseException) -> dict[str, str]:
    """The error of a failed task, as it is stored and shown."""
    return {
        "type": _bounded(_name(exception), LINE_LIMIT),
        "message": _bounded(_message(exception), MESSAGE_LIMIT),
        "traceback": _bounded(_traceback(exception), TRACEBACK_LIMIT),
    }


def summary(exception: BaseException) -> str:
    """What user code did, in a line: "raised KeyError: 'rows'" or "called sys.exit(3)"."""
    if isinstance(exception, SystemExit):
        return one_line(f"called sys.exit({_shown(exception.code)})")
    message = _message(exception)
    return one_line(f"raised {_name(exception)}{': ' if message else ''}{message}")


def one_line(text: str, limit: int = LINE_LIMIT) -> str:
    """``text`` without line breaks, and at most so many bytes of it."""
    raw = " ".join(_plain(text).split()).encode(errors="backslashreplace")
    if len(raw) <= limit:
        return raw.decode()
    return raw[: limit - 4].decode(errors="ignore") + " ..."


def _message(exception: BaseException) -> str:
    if isinstance(exception, SystemExit):
        return f"the task's code called sys.exit({_shown(exception.code)})"
    try:
        return _plain(str(exception))
    except BaseException as error:
        return f"(its text is not known: __str__ raised {_name(error)})"


def _shown(value: object) -> str:
    try:
        return _plain(repr(value))
    except BaseException as error:
        return f"(an object whose __repr__ raised {_name(error)})"


def _name(exception: BaseException) -> str:
    try:
        return _plain(type(exception).__qualname__)
    except BaseException:
        return "(a class without a name)"


def _plain(text: str) -> str:
    """``text`` as no subclass of str, whose methods could do anything."""
    return str.__str__(text)


def _traceback(exception: BaseException) -> str:
    try:
        found = traceback.TracebackException.from_exception(exception)
        _trim(found, set())
        return "".join(found.format())
    except BaseException as error:
        return f"(the traceback could not be written: {_name(error)})"


def _trim(found: traceback.TracebackException, seen: set[int]) -> None:
    """Leave taskd's own frames out, also in causes and groups, and asyncio's that call the task."""
    if id(found) in seen:
        return
    seen.add(id(found))
    frames = [frame for frame in found.stack if not frame.filename.startswith(_OURS)]
    found.stack[:] = dropwhile(lambda frame: frame.filename.startswith(_ASYNCIO), frames)
    for other in (found.__cause__, found.__context__, *(found.exceptions or ())):
        if other is not None:
            _trim(other, seen)


def _bounded(text: str, limit: int) -> str:
    raw = text.encode(errors="backslashreplace")
    if len(raw) > limit:
        half = (limit - 40) // 2
        raw = raw[:half] + b"\n... (left out) ...\n" + raw[-half:]
    return raw.decode(errors="ignore")  # a character that was cut in two
