"""The events of a store with one writer, told as those of three writers would be.

Each attempt of a task is another writer's. What one writer has committed, and what happened to one
task, is in order; nothing else is: the numbers of what is told go up and down, and what was told
last says nothing of what is still to come. A token has one number a writer.
"""

from __future__ import annotations

import random
from typing import Any

WRITERS = 3

MANY = 200
"""More events than these are told in the order of their numbers, which is one of those allowed."""


def writer_of(event: Any) -> int:
    return int(event.task + event.attempt) % WRITERS


class SeveralWriters:
    """A reader that answers as ``reader`` does, but for events and tokens."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)

    def token(self, named: int | str) -> str | None:
        if isinstance(named, int):
            return _token([named] * WRITERS)
        words = named.split("+") if named else []
        known = all(word.isdigit() for word in words) and len(words) in (0, WRITERS)
        return named if known else None

    def ask(self, query: Any, done: Any) -> None:
        from taskd.store import queries  # once the master has: this is loaded before it

        if not isinstance(query, queries.Events):
            self._reader.ask(query, done)
            return
        last = [int(word) for word in query.token.split("+")] if query.token else [0] * WRITERS
        found: list[Any] = []
        rest = query._replace(token=str(min(last)))
        while rest is not None:
            answer: list[Any] = []
            self._reader.ask(rest, answer.append)
            if isinstance(answer[0], Exception):
                done(answer[0])
                return
            found += [each.event for each in answer[0].found]
            rest = answer[0].next
        left = [event for event in found if event.number > last[writer_of(event)]]
        told = []
        for event in _in_some_order(left):
            last[writer_of(event)] = event.number
            told.append(queries.NextEvent(event, _token(last)))
        some = random.randint(1, len(told)) if told else 0
        rest = query._replace(token=told[some - 1].token) if some < len(told) else None
        done(queries.Part(told[:some], rest))


def _token(numbers: list[int]) -> str:
    return "+".join(map(str, numbers))


def _in_some_order(events: list[Any]) -> list[Any]:
    """The events, each writer's and each task's in order."""
    if len(events) > MANY:
        return events
    left, ordered = list(events), []
    while left:
        seen: set[Any] = set()
        free = []
        for event in left:
            marks = {("task", event.task), ("writer", writer_of(event))}
            if not marks & seen:
                free.append(event)
            seen |= marks
        ordered.append(random.choice(free))
        left.remove(ordered[-1])
    return ordered
