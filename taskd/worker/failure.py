"""What is kept of an exception that ended a task: {type, message, traceback}, all text, bounded.

Runs in workers and in tests. The traceback shows the task's code; taskd's own frames are left out.
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
        "type": type(exception).__qualname__,
        "message": _bounded(_message(exception), MESSAGE_LIMIT),
        "traceback": _bounded(_traceback(exception), TRACEBACK_LIMIT),
    }


def summary(exception: BaseException) -> str:
    """What user code did, in a line: "raised KeyError: 'rows'" or "called sys.exit(3)"."""
    if isinstance(exception, SystemExit):
        return one_line(f"called sys.exit({exception.code!r})")
    message = _message(exception)
    return one_line(f"raised {type(exception).__qualname__}{': ' if message else ''}{message}")


def one_line(text: str, limit: int = LINE_LIMIT) -> str:
    """``text`` without line breaks, and at most so many bytes of it."""
    raw = " ".join(text.split()).encode(errors="backslashreplace")
    if len(raw) <= limit:
        return raw.decode()
    return raw[: limit - 4].decode(errors="ignore") + " ..."


def _message(exception: BaseException) -> str:
    if isinstance(exception, SystemExit):
        return f"the task's code called sys.exit({exception.code!r})"
    try:
        return str(exception)
    except Exception as error:
        return f"(its text is not known: __str__ raised {type(error).__name__})"


def _traceback(exception: BaseException) -> str:
    try:
        found = traceback.TracebackException.from_exception(exception)
        _trim(found, set())
        return "".join(found.format())
    except Exception as error:
        return f"(the traceback could not be written: {type(error).__name__}: {error})"


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
