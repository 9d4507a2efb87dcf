"""Imports the app of a release, and decides whether the process may be forked afterwards.

Runs in the zygote, and in a worker that is spawned. The state of the process that taskd relies on,
and that the import may have changed, is restored. Libraries block signals to take them by sigwait,
close the standard descriptors as daemons do, set timers. Most of that stays as the import left it,
for the workers too. But a zygote that blocks SIGCHLD would never notice a death, and a worker
without descriptor 1 could not begin a task: such changes are undone, and the app is not refused.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import traceback
from typing import Any

from taskd.api.checks import is_async
from taskd.posix import native, process
from taskd.protocol.boot import Boot
from taskd.record import Record
from taskd.worker import output
from taskd.worker.failure import name_of

_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)

_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
"""Signals by which an operator ends a zygote."""


class Broken(Record):
    """The app does not import, or (if it ``imports``) its ``setup`` fails: the traceback's last
    line, and all of it."""

    message: str
    traceback: str
    imports: bool = False


def load(boot: Boot) -> Broken | None:
    """Import the app's modules with the release's directory first on the path, and call its
    ``[app] setup``. Registers the built-in task.

    The kernel's timer ends an import that hangs, whatever the app does. A zygote also ends with its
    master meanwhile (``Zygote.prove``): the next master would not know of it.
    """
    state, what = _ProcessState(), ""
    signal.setitimer(signal.ITIMER_REAL, boot.import_within)
    try:
        os.chdir(boot.release)
        sys.path.insert(0, boot.release)
        for name in boot.modules:
            importlib.import_module(name)
        if (where := (boot.app or {}).get("setup")) is not None:
            what = f"[app] setup = {where!r} failed: "
            _set_up(where)
            what = ""
        import taskd.worker.command
        import taskd.worker.process  # noqa: F401  (fails here if a module has the name of Python's)
    except BaseException as error:  # also sys.exit, which the app may call
        return _broken(error, what)
    finally:
        state.restore()
        output.flush()  # what the import has printed does not belong in a task's log
    return None


def _set_up(where: str) -> None:
    """Call the function at ``where`` ("module:function"). Raises whatever it does, and TypeError if
    it is async."""
    module, _, name = where.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    if is_async(found()):
        raise TypeError("it is async: it must be a plain function, which is done when it returns")


def _broken(error: BaseException, what: str) -> Broken:
    """``what`` failed, if not the import."""
    imports = what != ""
    try:
        message = _told(traceback.format_exception_only(error)[-1].strip(), MESSAGE)
        whole = _told("".join(traceback.format_exception(error)), ALL)
        return Broken(what + message + _where(error), whole, imports)
    except BaseException:  # raised by the error itself, which is an object of the app's
        return Broken(f"{what}it raised {_told(name_of(error), MESSAGE)}", "", imports)


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
    return (text if len(text) <= most else "… " + text[-most:]).encode(errors="replace").decode()


class _ProcessState:
    """The state at the time this was made, before the import."""

    def __init__(self) -> None:
        self._streams = [output.SavedDescriptor(fd) for fd in (0, 1, 2)]
        self._ending = {number: native.getsignal(number) for number in _ENDING}

    def restore(self) -> None:
        """Restore it, after the import."""
        for held in self._streams:
            held.put_back()
        signal.set_wakeup_fd(-1)
        for timer in _TIMERS:
            signal.setitimer(timer, 0.0)
        # In the zygote's loop no handler of the app's may run: what it raises would end the loop.
        # A signal that the app handles does not end the zygote either, but for those of _ENDING,
        # whose former handlers are back.
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            if callable(native.getsignal(number)):
                native.handle_signal(number, _nothing)
        for number, before in self._ending.items():
            native.handle_signal(number, signal.SIG_DFL if before is None else before)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        process.become_subreaper()


def _nothing(*_: object) -> None:
    """Replaces a signal handler of the app's."""


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
