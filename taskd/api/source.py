"""What ``ctx.each`` takes: a sequence, or a function of a cursor; and how each is resumed.

Runs in workers and tests. Two classes with the same methods; the loop machine (``journal``) asks
them where to resume, what to keep beside the cursor, and for the iterator of (cursor, item).
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Sequence
from inspect import isawaitable
from typing import Any

from taskd.api.interrupt import Held
from taskd.errors import NotPlainData
from taskd.protocol import data
from taskd.protocol.saved import Mark

REMEDY = (
    "Deploy code that fits what is saved, or cancel the task and submit it anew: nothing that was "
    "saved is lost meanwhile"
)


class Numbered:
    """A sequence: the cursor is an index, and a sequence that changed meanwhile is noticed."""

    def __init__(self, name: str, items: Sequence[Any]) -> None:
        self._name = name
        self._items = items
        self._ahead: tuple[int, Any] | None = None
        self.length = len(items)
        self.total: int | None = self.length

    def resume(self, mark: Mark | None) -> int:
        """The index to begin at. Raises Held if this is not what ``mark`` was saved for."""
        if mark is None:
            return 0
        if mark.moved and mark.length is None:
            return self._set_by_a_migration(mark.cursor)
        if mark.length is None or type(mark.cursor) is not int:
            raise Held(
                f"loop '{self._name}' was saved with a function as its source and now has a "
                f"sequence. {REMEDY}"
            )
        if mark.length != self.length:
            raise Held(
                f"the sequence of loop '{self._name}' changed: it had {mark.length} items when "
                f"its progress was saved and now has {self.length}. {REMEDY}"
            )
        expected = mark.fingerprint
        if expected is not None and self._fingerprint(mark.cursor) != expected:
            raise Held(
                f"the sequence of loop '{self._name}' changed: the item at index {mark.cursor}, "
                f"where the task continues, is not the one it was. {REMEDY}"
            )
        return mark.cursor

    def _set_by_a_migration(self, cursor: Any) -> int:
        if type(cursor) is int and 0 <= cursor <= self.length:
            return cursor
        raise Held(
            f"a migration set the cursor of loop '{self._name}' to {cursor!r:.100}: its source is "
            f"a sequence, whose cursor is an index, from 0 to {self.length}. {REMEDY}"
        )

    def entry(self) -> Mark | None:
        """What to keep before anything of the first item is kept."""
        return self.mark(0, 0, self.total)

    def mark(self, cursor: Any, done: int, total: int | None) -> Mark:
        """What to keep once the item before ``cursor`` is done."""
        if cursor >= self.length:
            return Mark(cursor, done, total, self.length, None, finished=True)
        return Mark(cursor, done, total, self.length, self._fingerprint(cursor))

    def pull(self, cursor: int) -> Iterator[tuple[int, Any]]:
        for index in range(cursor, self.length):
            if len(self._items) != self.length:
                raise RuntimeError(
                    f"the sequence of loop '{self._name}' had {self.length} items and now has "
                    f"{len(self._items)}: it must not change while the loop runs"
                )
            yield index + 1, self._item(index)

    def _fingerprint(self, index: int) -> bytes | None:
        try:
            self._ahead = (index, self._items[index])
        except Exception:  # the item before is done all the same; ``pull`` meets this error again
            return None
        return fingerprint(self._ahead[1])

    def _item(self, index: int) -> Any:
        ahead, self._ahead = self._ahead, None
        return ahead[1] if ahead is not None and ahead[0] == index else self._items[index]


class Called:
    """A function that takes the last cursor, and the arguments, and yields (cursor, item)."""

    total: int | None = None

    def __init__(self, name: str, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._name = name
        self._function = function
        self._args = args

    def resume(self, mark: Mark | None) -> Any:
        """The cursor to begin at. Raises Held if this is not what ``mark`` was saved for."""
        if mark is None:
            return None
        if mark.length is not None and not mark.moved:
            raise Held(
                f"loop '{self._name}' was saved with a sequence as its source and now has a "
                f"function. {REMEDY}"
            )
        return data.decode(data.encode(mark.cursor))  # a copy: it is the function's to change

    def entry(self) -> Mark | None:
        return None  # its items cannot be told apart before it has yielded a cursor

    def mark(self, cursor: Any, done: int, total: int | None) -> Mark:
        return Mark(cursor, done, total)

    def pull(self, cursor: Any) -> Iterator[Any]:
        """Call the function. Raises TypeError if what it returns cannot be iterated over."""
        found = self.call(cursor)
        if isinstance(found, AsyncIterable) or isawaitable(found):
            if hasattr(found, "close"):
                found.close()  # a coroutine that nobody awaits would complain
            raise TypeError(
                f"the source of loop '{self._name}' is an async function, which needs an async "
                "task: make the task's function async def, or the source a plain generator"
            )
        return iter(self.iterable(found))

    def call(self, cursor: Any) -> Any:
        return self._function(cursor, *self._args)

    def iterable(self, found: Any) -> Iterable[Any]:
        """``found`` if it is iterable."""
        if isinstance(found, Iterable):
            return found
        raise TypeError(
            f"the source of loop '{self._name}' returned {_a(found)}: it must be a generator "
            "function, which takes the last cursor and yields pairs (cursor, item)"
        )


Source = Numbered | Called


def source_of(name: str, given: Any, args: tuple[Any, ...]) -> Source:
    """The Source for what was given to ``ctx.each``. Raises TypeError saying what to do."""
    if isinstance(given, Sequence) and not isinstance(given, (str, bytes)):
        if args:
            raise TypeError(f"loop '{name}': a sequence takes no further arguments")
        return Numbered(name, given)
    if callable(given):
        return Called(name, given, args)
    raise TypeError(
        f"loop '{name}': {_a(given)} cannot be resumed where it was left. Pass {_instead(given)}"
    )


def pair(name: str, given: Any) -> tuple[Any, Any]:
    """What a source yielded, if it is a pair with a cursor. Raises TypeError otherwise."""
    if not isinstance(given, tuple) or len(given) != 2:
        raise TypeError(
            f"the source of loop '{name}' yielded {_a(given)}: it must yield pairs, the cursor to "
            "save once the item is done, and the item: yield cursor, item"
        )
    if given[0] is None:
        raise TypeError(
            f"the source of loop '{name}' yielded None as the cursor, which means 'from the "
            "start': yield the cursor from which the loop goes on after this item"
        )
    return given


def fingerprint(item: Any) -> bytes:
    """Eight bytes that differ for another item; an item that is not plain data: for its type."""
    try:
        raw = data.encode(_ordered(item))
    except (NotPlainData, RecursionError):
        raw = b"type " + type(item).__qualname__.encode(errors="backslashreplace")
    return hashlib.blake2b(raw, digest_size=8).digest()


def _ordered(item: Any, depth: int = data.DEPTH) -> Any:
    """``item`` with each set as a sorted list: the order of sets differs between processes."""
    kind = type(item)
    if depth == 0:
        return item  # too deep to be plain data: encode says so
    if kind is set:
        return ["set", sorted(data.encode(_ordered(each, depth - 1)) for each in item)]
    if kind in (list, tuple):
        return kind(_ordered(each, depth - 1) for each in item)
    if kind is dict:
        return {key: _ordered(value, depth - 1) for key, value in item.items()}
    return item


def _instead(given: Any) -> str:
    if isinstance(given, dict):
        return "a list, such as list(the_dict.items()), if its order is the same each time"
    if isinstance(given, (set, frozenset)):
        return "a sorted list of it, whose order is the same each time"
    if isinstance(given, (str, bytes)):
        return "a list of what the loop shall go over"
    if isinstance(given, (Iterable, AsyncIterable)):
        return (
            "a sequence such as a list, or the generator function itself, not what it returned: "
            "one that takes the last cursor (None at first) and yields pairs (cursor, item)"
        )
    return (
        "a sequence such as a list, or a function that takes the last cursor (None at first) and "
        "yields pairs (cursor, item)"
    )


def _a(value: Any) -> str:
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    return "None" if value is None else f"an object of type {type(value).__name__}"
