"""Surroundings: detects what a task has changed of its process, so that no other task meets it.

Runs in workers. A worker whose surroundings have changed is not used again: another one is forked
in milliseconds, while undoing a change could break a module that the task has imported and that
relies on it. Only changes that could keep the attempt's END from being written are undone at once,
by ``calm``.

Variables of the app's own modules are not checked; ``tasks_per_worker = 1`` is the remedy there.
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
"""Lines of /proc/self/status that change by themselves."""

_LIMITS = sorted(getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_"))

_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)

_NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid_for_children", "time_for_children", "user",
               "uts")  # fmt: skip

_MODULES = (builtins, os, os.path, select, signal, socket, sys, threading, time)
"""Modules of Python that a worker itself uses."""

_MOST_NAMED = 3
"""Descriptors left open by a task that the daemon's log names at most."""

_CODE = (type, types.FunctionType, types.BuiltinFunctionType)


class Surroundings:
    """The surroundings at the time this was made.

    ``ours`` returns the worker's own descriptors, which change, for example with a new connection.
    ``keeps_connections``: connections that a task has opened may stay.
    """

    def __init__(
        self,
        ours: Callable[[], Collection[int]] = lambda: (),
        keeps_connections: bool = False,
    ) -> None:
        self._ours = ours
        self._keeps_connections = keeps_connections
        self._handlers = _handlers()
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
        """Stop the task's timers, signal handlers (which may raise) and tracing, and put its
        resource limits back, so that they do not disturb the end of its attempt. ``differences``
        reports limits that cannot be put back, and that there were handlers."""
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
        """What has changed, in words; empty: another task may run here."""
        try:
            found = [name for name, look in _LOOKS.items() if _seen(look) != self._rest[name]]
            is_changed = {
                "resource limits": {each: resource.getrlimit(each) for each in _LIMITS}
                != self._limits,
                "modules": any(sys.modules.get(name) is not m for name, m in self._modules.items()),
                "functions": any(vars(o).get(name) is not value for o, name, value in self._code),
                "locks": self._file_locks() != self._locks,
            }
            found += [what for what, changed in is_changed.items() if changed]
            return found + self._of_descriptors()
        except BaseException as error:  # raised by an app's object in a comparison
            return [f"what cannot be compared ({name_of(error)})"]

    def keeps_from_others(self) -> bool:
        """Whether the task has left a lock on a file, or a socket with an address of its own, which
        the next task may want and only the end of this process takes away."""
        try:
            now, ours = descriptors.opened(), self._ours()
            left = {fd for fd, file in now.items() if self._descriptors.get(fd) != file}
            locks = zip(self._file_locks(), self._locks, strict=True)
            return any(map(descriptors.is_exclusive, left.difference(ours))) or any(
                locked and locked != before for locked, before in locks
            )
        except BaseException:  # raised by what an app has put in the place of Python's functions
            return True

    def _of_descriptors(self) -> list[str]:
        """What has changed about the open descriptors: some are gone, or the task has left some."""
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
    """Owner, name and value of the functions and classes of taskd, and of the modules that it uses;
    of the methods of taskd's own classes as well."""
    ours = [module for name, module in sys.modules.items() if name.partition(".")[0] == "taskd"]
    for module in (*_MODULES, *ours):
        for name, value in list(vars(module).items()):
            kind = type(value)
            if not issubclass(kind, _CODE):
                continue
            yield module, name, value
            if module in ours and issubclass(kind, type) and value.__module__ == module.__name__:
                for inner, method in list(vars(value).items()):
                    if type(method) is types.FunctionType:
                        yield value, inner, method


def _status() -> list[str]:
    """Users, groups, rights, umask, signals that are blocked, ignored or caught, processors."""
    with open("/proc/self/status", encoding="utf-8", errors="replace") as file:
        return [line for line in file if not line.startswith(_VOLATILE)]


def _nothing(*_: object) -> None:
    """Replaces a task's handler. The former handler would not show that the task had set one."""


def _handlers() -> dict[int, Any]:
    return {number: signal.getsignal(number) for number in signal.valid_signals()}


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
    """The value of ``look``; the type of what it raises, for example in another root directory."""
    try:
        return look()
    except BaseException as error:
        return type(error)
