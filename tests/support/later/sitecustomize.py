"""A store that answers later, in another order than it was asked, and with several writers, in a
real daemon.

With $TASKD_TEST_LATER set, ``support.daemon`` puts this directory on the module path of daemons,
and Python loads this file at every start, that of a new image and of a trial, too. When the master
imports its ``Storage``, each answer is put off by a random time; half of them are as of the
question and half of them as of the answer. A batch is answered a random time after it is on disk,
in the writer's thread. Events are told as three writers would (``writers``).
The log says so, by TOLD.
"""

from __future__ import annotations

import sys
from typing import Any

STORAGE = "taskd.master.loop.storage"

TOLD = "the store answers later"

LONGEST = 0.02
"""Seconds that most answers take at most; one in ten takes up to ten times as long."""


class Finder:
    """Finds the one module, and puts off what it answers once it is loaded."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name != STORAGE:
            return None
        from importlib.machinery import PathFinder

        spec = PathFinder.find_spec(name, path)
        assert spec is not None and spec.loader is not None
        load = spec.loader.exec_module

        def load_and_change(module: Any) -> None:
            load(module)
            answer_later(module.Storage)
            commit_later(module)
            with_several_writers(module)

        spec.loader.exec_module = load_and_change  # type: ignore[method-assign]
        return spec


def answer_later(storage: Any) -> None:
    from random import random

    at_once = storage.ask

    def ask(self: Any, query: Any, done: Any) -> None:
        delay = some_time()
        if random() < 0.5:
            self._loop.after(delay, lambda: at_once(self, query, done))
        else:
            at_once(self, query, lambda answer: self._loop.after(delay, lambda: done(answer)))

    storage.ask = ask
    print(TOLD, file=sys.stderr)


def commit_later(module: Any) -> None:
    import time

    class Store(module.SqliteStore):  # type: ignore[misc]
        def apply(self, number: int, operations: Any) -> Any:
            outcomes = super().apply(number, operations)
            time.sleep(some_time())
            return outcomes

    module.SqliteStore = Store


def some_time() -> float:
    import random

    return random.random() * LONGEST * (10 if random.random() < 0.1 else 1)


def with_several_writers(module: Any) -> None:
    from writers import SeveralWriters

    reader = module.SqliteReader
    module.SqliteReader = lambda path: SeveralWriters(reader(path))


sys.meta_path.insert(0, Finder())  # type: ignore[arg-type]
