"""What is kept of an exception that ended a task: {type, message, traceback}, all text, bounded.

Runs in workers and in tests. The traceback shows the task's code; taskd's own frames are left out.

Invariant: nothing escapes from here. An exception is the app's own object: its ``__str__``, its
``__class__``, its class's name and what it is chained to are code that may raise what it likes.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from itertools import dropwhile
from typing import Any

from taskd.worker import sandbox

MESSAGE_LIMIT = 8 * 1024
TRACEBACK_LIMIT = 64 * 1024
LINE_LIMIT = 500
"""Bytes. Of what is longer, the middle is left out: the causes and the last line say the most."""

_TASKD = os.path.dirname(os.path.dirname(__file__)) + os.sep
_OURS = (
    _TASKD + "api" + os.sep,
    _TASKD + "worker" + os.sep,
    _TASKD + "protocol" + os.sep,
    _TASKD + "tasks.py",
)
_ASYNCIO = os.path.dirname(os.__file__) + os.sep + "asyncio" + os.sep


def describe(exception: BaseException, shown: Callable[[str], str] = str) -> dict[str, str]:
    """The error of a failed task, as it is stored and shown. ``shown``: what may be, of a text; of
    all of it, since half of a secret would not be found."""
    traceback = _traceback(exception) + sandbox.explained(exception)
    return {
        "type": _bounded(shown(name_of(exception)), LINE_LIMIT),
        "message": _bounded(shown(_message(exception)), MESSAGE_LIMIT),
        "traceback": _bounded(shown(traceback), TRACEBACK_LIMIT),
    }


def text_of(value: object) -> str:
    """``value`` as text. Raises what its ``__str__`` raises."""
    return _plain(str(value))


def bounded(text: str) -> str:
    """A message as it can be stored."""
    return _bounded(text, MESSAGE_LIMIT)


def summary(exception: BaseException) -> str:
    """What user code did, in a line: "raised KeyError: 'rows'" or "called sys.exit(3)"."""
    message = _message(exception)
    if _is_exit(exception):
        return one_line(message.removeprefix(_EXITED))
    return one_line(f"raised {name_of(exception)}{': ' if message else ''}{message}")


def one_line(text: str, limit: int = LINE_LIMIT) -> str:
    """``text`` without line breaks, and at most so many bytes of it."""
    raw = " ".join(_plain(text).split()).encode(errors="backslashreplace")
    if len(raw) <= limit:
        return raw.decode()
    return raw[: limit - 4].decode(errors="ignore") + " ..."


def _message(exception: BaseException) -> str:
    try:
        if _is_exit(exception):
            return f"{_EXITED}called sys.exit({_shown(exception.code)})"  # type: ignore[attr-defined]
        return _plain(str(exception))
    except BaseException as error:
        return f"(its text is not known: __str__ raised {name_of(error)})"


_EXITED = "the task's code "


def _is_exit(exception: BaseException) -> bool:
    return issubclass(type(exception), SystemExit)


def _shown(value: object) -> str:
    try:
        return _plain(repr(value))
    except BaseException as error:
        return f"(an object whose __repr__ raised {name_of(error)})"


def name_of(exception: BaseException) -> str:
    """Its class's name."""
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
        _trim(found)
        return "".join(found.format())
    except BaseException as error:
        return f"{_frames(exception)}(the rest could not be written: {name_of(error)})\n"


def _frames(exception: BaseException) -> str:
    """Where it was raised, without its text, its causes and what is in it."""
    try:
        where: Any = _RAISED_AT.__get__(exception)
        return "".join(["Traceback (most recent call last):\n", *traceback.format_tb(where)])
    except BaseException:
        return ""


_RAISED_AT: Any = vars(BaseException)["__traceback__"]
"""The attribute itself: a class of the app's may have another of that name."""


def _trim(whole: traceback.TracebackException) -> None:
    """Leave taskd's own frames out, also in causes and groups, and asyncio's that call the task."""
    seen: set[int] = set()
    waiting = [whole]
    while waiting:
        found = waiting.pop()
        if id(found) in seen:
            continue
        seen.add(id(found))
        frames = [frame for frame in found.stack if not frame.filename.startswith(_OURS)]
        found.stack[:] = dropwhile(lambda frame: frame.filename.startswith(_ASYNCIO), frames)
        others = (found.__cause__, found.__context__, *(found.exceptions or ()))
        waiting += [other for other in others if other is not None]


def _bounded(text: str, limit: int) -> str:
    raw = text.encode(errors="backslashreplace")
    if len(raw) > limit:
        half = (limit - 40) // 2
        raw = raw[:half] + b"\n... (left out) ...\n" + raw[-half:]
    return raw.decode(errors="ignore")  # a character that was cut in two
