"""The stored form of an exception that ended a task: {type, message, traceback}, bounded texts.

Runs in workers and in tests. The traceback shows the task's code; taskd's own frames are left out.

Invariant: no exception leaves this module. The exception that is described is the app's own object:
its ``__str__``, its ``__class__``, its class's name and the exceptions it is chained to may run the
app's code, which may raise any exception.
"""

from __future__ import annotations

import errno
import os
import traceback
from collections.abc import Callable
from contextlib import suppress
from itertools import dropwhile
from typing import Any

from taskd.paths import MORE
from taskd.posix import mounts

MESSAGE_LIMIT = 8 * 1024
TRACEBACK_LIMIT = 64 * 1024
LINE_LIMIT = 500
"""Bytes. A longer text has its middle left out: its beginning and its end say the most."""

plain = str.__str__
"""The text as a plain str: methods of a subclass are the app's code."""

_TASKD = os.path.dirname(os.path.dirname(__file__)) + os.sep
_OURS = (
    _TASKD + "api" + os.sep,
    _TASKD + "worker" + os.sep,
    _TASKD + "protocol" + os.sep,
    _TASKD + "tasks.py",
)
_ASYNCIO = os.path.dirname(os.__file__) + os.sep + "asyncio" + os.sep

_HOW = f"{MORE} has the line: put it in with `systemctl edit`, and restart the service"

_ERRNO = OSError.__dict__["errno"]
_FILENAME = OSError.__dict__["filename"]
"""The attributes themselves: a class of the app's may have others of these names."""


def describe(exception: BaseException, shown: Callable[[str], str] = str) -> dict[str, str]:
    """The error of a failed task, as it is stored and shown. ``shown`` takes the secrets out of a
    text; it gets the whole text, since it would not find half of a secret."""
    traceback = _traceback(exception) + _sandbox_line(exception)
    return {
        "type": bounded(shown(name_of(exception)), LINE_LIMIT),
        "message": bounded(shown(_message(exception)), MESSAGE_LIMIT),
        "traceback": bounded(shown(traceback), TRACEBACK_LIMIT),
    }


def summary(exception: BaseException) -> str:
    """How user code ended, in one line: "raised KeyError: 'rows'" or "called sys.exit(3)"."""
    message = _message(exception)
    if issubclass(type(exception), SystemExit):
        return one_line(message.removeprefix(_EXITED))
    return one_line(f"raised {name_of(exception)}{': ' if message else ''}{message}")


def one_line(text: str, limit: int = LINE_LIMIT) -> str:
    """``text`` without line breaks, cut to at most ``limit`` bytes."""
    raw = " ".join(plain(text).split()).encode(errors="backslashreplace")
    if len(raw) <= limit:
        return raw.decode()
    return raw[: limit - 4].decode(errors="ignore") + " ..."


def _message(exception: BaseException) -> str:
    try:
        if issubclass(type(exception), SystemExit):
            return f"{_EXITED}called sys.exit({_shown(exception.code)})"  # type: ignore[attr-defined]
        return plain(str(exception))
    except BaseException as error:
        return f"(its text is not known: __str__ raised {name_of(error)})"


_EXITED = "the task's code "


def _shown(value: object) -> str:
    try:
        return plain(repr(value))
    except BaseException as error:
        return f"(an object whose __repr__ raised {name_of(error)})"


def name_of(exception: BaseException) -> str:
    """The name of its class."""
    try:
        return plain(type(exception).__qualname__)
    except BaseException:
        return "(a class without a name)"


def _traceback(exception: BaseException) -> str:
    try:
        whole = traceback.TracebackException.from_exception(exception)
        # Without taskd's own frames, also in causes and groups, and asyncio's that call the task.
        seen: set[int] = set()
        waiting = [whole]
        while waiting:
            found = waiting.pop()
            if id(found) in seen:
                continue
            seen.add(id(found))
            kept = [frame for frame in found.stack if not frame.filename.startswith(_OURS)]
            found.stack[:] = dropwhile(lambda frame: frame.filename.startswith(_ASYNCIO), kept)
            others = (found.__cause__, found.__context__, *(found.exceptions or ()))
            waiting += [other for other in others if other is not None]
        return "".join(whole.format())
    except BaseException as error:
        frames = ""
        with suppress(BaseException):
            where: Any = _RAISED_AT.__get__(exception)
            frames = "".join(["Traceback (most recent call last):\n", *traceback.format_tb(where)])
        return f"{frames}(the rest could not be written: {name_of(error)})\n"


_RAISED_AT: Any = vars(BaseException)["__traceback__"]
"""The attribute itself: a class of the app's may have another of that name."""


def bounded(text: str, limit: int = MESSAGE_LIMIT) -> str:
    """``text`` with at most ``limit`` bytes, without its middle if it is longer."""
    raw = text.encode(errors="backslashreplace")
    if len(raw) > limit:
        half = (limit - 40) // 2
        raw = raw[:half] + b"\n... (left out) ...\n" + raw[-half:]
    return raw.decode(errors="ignore")  # a character that was cut in two


def _sandbox_line(exception: BaseException) -> str:
    """A line that explains an error which the service's sandbox has caused; empty if it is not
    likely to be the cause. The last system error among ``exception`` and its causes counts.

    The unit's sandbox makes calls fail with plain system errors ("Read-only file system",
    "Permission denied"), which do not name the unit. Whether it is the cause is told by this
    process's mounts, and by whether its system calls are filtered.
    """
    if not os.environ.get("INVOCATION_ID"):  # no service manager
        return ""
    try:
        at: BaseException | None = exception
        for _ in range(10):  # causes at most
            if at is None:
                break
            if issubclass(type(at), OSError):
                number, name = _ERRNO.__get__(at), _FILENAME.__get__(at)
                if number in (errno.EROFS, errno.EACCES, errno.EPERM):
                    found = _cause_in_sandbox(
                        number, os.path.abspath(os.fsdecode(name)) if name else ""
                    )
                    return f"(the service's sandbox: {found}; {_HOW})\n" if found else ""
            at = at.__cause__ or at.__context__
    except BaseException:
        pass
    return ""


def _cause_in_sandbox(number: int, path: str) -> str:
    if number == errno.EPERM:
        with open("/proc/self/status", encoding="utf-8") as file:
            mode = next((line.split()[1] for line in file if line.startswith("Seccomp:")), "0")
        if mode != "2":
            return ""
        return (
            "maybe one of the calls that SystemCallFilter= refuses, such as chown, nice and mount"
        )
    if not path:
        return ""
    mount = mounts.on_the_way(path, mounts.table())[-1]
    # Read-only at this place alone: the file system itself can be written to.
    if number == errno.EROFS and "ro" in mount.options and "rw" in mount.super_options:
        return f"tasks may not write to {path}: ReadWritePaths= names directories where they may"
    # systemd mounts an empty directory over what it hides: /systemd/inaccessible/dir of /run or, in
    # a container, of another file system.
    if number == errno.EACCES and mount.root.endswith("/inaccessible/dir"):
        return f"it hides {mount.at}: ProtectHome= or the like"
    return ""
