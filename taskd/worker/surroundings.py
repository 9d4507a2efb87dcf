"""What a task may change of its process, so that no other task meets it.

Runs in workers. A worker whose surroundings are not what they were before a task is not used
again: another one is forked in milliseconds, while putting things back would take away what a
module that the task has imported relies on from then on. Only what would keep the attempt's own end
from being written is put back at once: see ``calm``.

Not noticed is what the app's own modules keep in their variables; ``tasks_per_worker = 1`` is the
remedy there.
"""

from __future__ import annotations

import builtins
import contextlib
import gc
import locale
import os
import resource
import select
import signal
import socket
import sys
import threading
import time
import types
from collections.abc import Callable, Collection, Iterator
from typing import Any

from taskd import tasks
from taskd.posix import descriptors
from taskd.worker.failure import name_of

_VOLATILE = ("Name", "State", "Vm", "Rss", "Hugetlb", "Threads", "SigQ", "SigPnd", "ShdPnd",
             "FDSize", "voluntary_ctxt", "nonvoluntary_ctxt", "Core", "THP")  # fmt: skip
"""Lines of /proc/self/status that change without anyone changing anything."""

_LIMITS = sorted(getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_"))

_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)

_NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid_for_children", "time_for_children", "user",
               "uts")  # fmt: skip

_MODULES = (builtins, os, os.path, select, signal, socket, sys, threading, time)
"""Modules of Python that a worker itself works with."""

_MOST_NAMED = 3
"""Descriptors that the daemon's log names of those that a task has left."""

_CODE = (type, types.FunctionType, types.BuiltinFunctionType)


class Surroundings:
    """As they were when this was made.

    ``ours``: descriptors of the worker itself that may be others later on, such as one of a lost
    connection; asked each time. ``keeps_connections``: what a task has connected may stay.
    """

    def __init__(
        self,
        ours: Callable[[], Collection[int]] = lambda: (),
        keeps_connections: bool = False,
    ) -> None:
        self._ours = ours
        self._keeps_connections = keeps_connections
        self._handlers = {number: signal.getsignal(number) for number in _SIGNALS}
        self._limits = {each: resource.getrlimit(each) for each in _LIMITS}
        self._modules = dict(sys.modules)
        self._code = list(_code())
        self._rest = {name: _seen(look) for name, look in _LOOKS.items()}
        theirs = ours()
        found = descriptors.opened()
        self._descriptors = {fd: file for fd, file in found.items() if fd not in theirs}
        self._files = [fd for fd in self._descriptors if descriptors.is_file(fd)]
        self._locks = self._file_locks()

    def calm(self) -> None:
        """What the task set ticking, its signal handlers (which may raise), resource limits and
        tracing must not meet the end of its attempt. What cannot be put back is found by
        ``differences``, and so is that there were handlers."""
        for timer in _TIMERS:
            signal.setitimer(timer, 0)
        for number, before in self._handlers.items():
            now = signal.getsignal(number)
            if callable(now) and now is not before:
                signal.signal(number, _nothing)
        for each, limits in self._limits.items():
            with contextlib.suppress(OSError, ValueError):
                resource.setrlimit(each, limits)
        sys.settrace(None)
        sys.setprofile(None)

    def differences(self) -> list[str]:
        """What is not as it was, in words; empty: another task may run here."""
        try:
            return self._differences()
        except BaseException as error:  # of an object of the app's: is it the same as before?
            return [f"what cannot be compared ({name_of(error)})"]

    def _differences(self) -> list[str]:
        found = [name for name, look in _LOOKS.items() if _seen(look) != self._rest[name]]
        if any(resource.getrlimit(each) != limits for each, limits in self._limits.items()):
            found.append("resource limits")
        if any(sys.modules.get(name) is not module for name, module in self._modules.items()):
            found.append("modules")
        if any(vars(owner).get(name) is not value for owner, name, value in self._code):
            found.append("functions")
        if self._file_locks() != self._locks:
            found.append("locks")
        return found + self._of_descriptors()

    def _of_descriptors(self) -> list[str]:
        """A file, a lock or a connection that a task leaves open must not meet the next one."""
        now, ours = descriptors.opened(), self._ours()
        found = [] if self._descriptors.items() <= now.items() else ["descriptors"]
        left = [fd for fd in now if fd not in self._descriptors and fd not in ours]
        if self._keeps_connections:
            left = [fd for fd in left if descriptors.peer(fd) is None]
        if left:
            names = ", ".join(descriptors.name(fd) for fd in left[:_MOST_NAMED])
            more = "" if len(left) <= _MOST_NAMED else f" and {len(left) - _MOST_NAMED} more"
            could_stay = all(descriptors.peer(fd) is not None for fd in left)
            hint = " (see [app] keep_connections)" if could_stay else ""
            found.append(f"left open: {names}{more}{hint}")
        return found

    def _file_locks(self) -> list[list[str]]:
        return [descriptors.locks(fd) for fd in self._files]


def _code() -> Iterator[tuple[Any, str, Any]]:
    """The functions and classes of taskd, and of the modules that it works with."""
    ours = [module for name, module in sys.modules.items() if name.partition(".")[0] == "taskd"]
    for module in (*_MODULES, *ours):
        for name, value in list(vars(module).items()):
            if issubclass(type(value), _CODE):
                yield module, name, value
                if (
                    module in ours
                    and issubclass(type(value), type)
                    and value.__module__ == module.__name__
                ):
                    for inner, method in list(vars(value).items()):
                        if type(method) is types.FunctionType:
                            yield value, inner, method


def _status() -> list[str]:
    """Users, groups, rights, umask, signals that are blocked, ignored or caught, processors."""
    with open("/proc/self/status", encoding="utf-8", errors="replace") as file:
        return [line for line in file if not line.startswith(_VOLATILE)]


def _nothing(*_: object) -> None:
    """In place of a task's handler: not what was there before, which would be like any worker."""


def _handlers() -> list[Any]:
    return [signal.getsignal(number) for number in range(1, signal.NSIG) if number in _SIGNALS]


_SIGNALS = signal.valid_signals()


def _place() -> list[Any]:
    """The working directory, the root directory, and the namespaces."""
    here, root = os.stat("."), os.stat("/")
    spaces = [os.readlink(f"/proc/self/ns/{name}") for name in _NAMESPACES]
    return [here.st_dev, here.st_ino, root.st_dev, root.st_ino, spaces]


def _python() -> list[Any]:
    streams = (sys.stdin, sys.stdout, sys.stderr)
    hooks = (sys.excepthook, sys.unraisablehook, threading.excepthook, sys.displayhook)
    imports = (sys.path, sys.meta_path, sys.path_hooks)
    return [
        *map(id, (*streams, *hooks, *imports, os.environ)),
        *(stream is None or stream.closed for stream in streams),
        *(list(each) for each in imports),
        list(sys.argv),
        sys.getrecursionlimit(),
        sys.getswitchinterval(),
        threading.gettrace() if hasattr(threading, "gettrace") else None,
        gc.isenabled(),
        gc.get_threshold(),
        socket.getdefaulttimeout(),
        locale.setlocale(locale.LC_ALL),
        time.tzname,
    ]


def _priority() -> list[Any]:
    with open("/proc/self/oom_score_adj", encoding="ascii") as file:
        return [os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0), file.read()]


_LOOKS: dict[str, Callable[[], Any]] = {
    "users, rights or signals": _status,
    "signal handlers": _handlers,
    "directory or namespaces": _place,
    "Python's own state": _python,
    "environment": lambda: dict(os.environ),
    "priority": _priority,
    "registered tasks": lambda: dict(tasks.registered),
}


def _seen(look: Callable[[], Any]) -> Any:
    """What cannot be seen (any more, in another root directory, say) is something else."""
    try:
        return look()
    except BaseException as error:
        return type(error)
