"""Imports the app of a release, and decides whether the process may be forked afterwards.

Runs in the zygote, and in a worker that is spawned.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
import traceback

from taskd.protocol.boot import Boot
from taskd.record import Record
from taskd.worker.failure import name_of


class Broken(Record):
    """The app does not import: the traceback's last line, and all of it."""

    message: str
    traceback: str


def load(boot: Boot) -> Broken | None:
    """Import the app's modules with the release's directory first on the path. Registers the
    built-in task."""
    try:
        os.chdir(boot.release)
        sys.path.insert(0, boot.release)
        for name in boot.modules:
            importlib.import_module(name)
        import taskd.worker.command
        import taskd.worker.process  # noqa: F401  (fails here if a module has the name of Python's)
    except BaseException as error:  # also sys.exit, which the app may call
        return _broken(error)
    return None


def _broken(error: BaseException) -> Broken:
    try:
        lines = traceback.format_exception_only(error)
        return Broken(
            _told(lines[-1].strip(), MESSAGE) + _where(error),
            _told("".join(traceback.format_exception(error)), ALL),
        )
    except BaseException:  # raised by the error itself, which is an object of the app's
        return Broken(f"it raised {_told(name_of(error), MESSAGE)}", "")


def _where(error: BaseException) -> str:
    """The file and line that the error came from."""
    if issubclass(type(error), SyntaxError):
        return _told(f" ({error.filename}, line {error.lineno})", MESSAGE)  # type: ignore[attr-defined]
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if not f.filename.startswith("<frozen") and f.filename != __file__]
    return _told(f" ({ours[-1].filename}, line {ours[-1].lineno})", MESSAGE) if ours else ""


MESSAGE = 2_000
"""Characters of the traceback's last line that the master is told."""

ALL = 100_000
"""Characters of the traceback that the master is told, from its end."""


def _told(text: str, most: int) -> str:
    """The last ``most`` characters of ``text``, as valid text for a message."""
    cut = text if len(text) <= most else "… " + text[-most:]
    return cut.encode(errors="replace").decode()


def may_fork(fork: str) -> tuple[bool, list[str]]:
    """Whether workers are forked (else spawned), and the warnings.

    A forked child has only the thread that forked: a lock that another thread held stays locked
    in it for ever. Python threads therefore forbid forking; native ones usually survive it.
    """
    others = [t.name for t in threading.enumerate() if t is not threading.main_thread()]
    native_threads = len(os.listdir("/proc/self/task")) - threading.active_count()
    warnings = []
    if others:
        names = ", ".join(others[:5])
        warnings.append(f"the app starts threads at import ({names}); ")
        warnings[-1] += (
            'forking all the same, since fork = "always"'
            if fork == "always"
            else "its workers are started afresh, which takes longer and more memory"
        )
    elif native_threads > 0 and fork != "never":
        warnings.append(
            f"{native_threads} native threads after import (of a library such as numpy); "
            'if its workers hang, set fork = "never"'
        )
    return (fork == "always" or (fork == "auto" and not others)), warnings
