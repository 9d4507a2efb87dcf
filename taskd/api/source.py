"""The sources of ``ctx.each``: a sequence, or a function of a cursor; and how each is resumed.

Runs in workers and tests. Two classes with the same methods; the loop (``journal.Loop``) asks them
where to resume, what to save beside the cursor, and for the iterator of (cursor, item). ``length``
is None where the number of items is not known.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Sequence
from typing import Any

from taskd.api.checks import is_async
from taskd.api.interrupt import Held
from taskd.errors import NotPlainData
from taskd.protocol import cbor, data
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

    def resume(self, mark: Mark | None) -> int:
        """The index to begin at. Raises Held if this is not what ``mark`` was saved for."""
        if mark is None:
            return 0
        if mark.moved and mark.length is None:
            if type(mark.cursor) is int and 0 <= mark.cursor <= self.length:
                return mark.cursor
            raise Held(
                f"a migration set the cursor of loop '{self._name}' to {mark.cursor!r:.100}: its "
                f"source is a sequence, whose cursor is an index, from 0 to {self.length}. {REMEDY}"
            )
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
        if mark.fingerprint is not None and mark.fingerprint != self._fingerprint(mark.cursor):
            raise Held(
                f"the sequence of loop '{self._name}' changed: the item at index {mark.cursor}, "
                f"where the task continues, is not the one it was. {REMEDY}"
            )
        return mark.cursor

    def mark(self, cursor: Any, done: int, total: int | None) -> Mark:
        """What to save once the item before ``cursor`` is done."""
        is_last = cursor >= self.length
        following = None if is_last else self._fingerprint(cursor)
        return Mark(cursor, done, total, self.length, following, is_last)

    def pull(self, cursor: int) -> Iterator[tuple[int, Any]]:
        """The pairs (cursor after the item, item) from ``cursor`` on."""
        for index in range(cursor, self.length):
            if len(self._items) != self.length:
                raise RuntimeError(
                    f"the sequence of loop '{self._name}' had {self.length} items and now has "
                    f"{len(self._items)}: it must not change while the loop runs"
                )
            ahead, self._ahead = self._ahead, None
            if ahead is None or ahead[0] != index:
                ahead = index, self._items[index]
            yield index + 1, ahead[1]

    def _fingerprint(self, index: int) -> bytes | None:
        try:
            self._ahead = (index, self._items[index])
        except Exception:  # the item before is done all the same; ``pull`` meets this error again
            return None
        return fingerprint(self._ahead[1])


class Called:
    """A function that takes the last cursor, and the arguments, and yields (cursor, item)."""

    length: int | None = None

    def __init__(self, name: str, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._name = name
        self.function = function
        self.args = args

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

    def mark(self, cursor: Any, done: int, total: int | None) -> Mark:
        """What to save once the item that came with ``cursor`` is done."""
        return Mark(cursor, done, total)

    def pull(self, cursor: Any) -> Iterator[Any]:
        """Call the function. Raises TypeError if what it returns cannot be iterated over."""
        found = self.function(cursor, *self.args)
        if isinstance(found, AsyncIterable) or is_async(found):
            raise TypeError(
                f"the source of loop '{self._name}' is an async function, which needs an async "
                "task: make the task's function async def, or the source a plain generator"
            )
        return iter(self.iterable(found))

    def iterable(self, found: Any) -> Iterable[Any]:
        """``found``, which the function returned. Raises TypeError if it is not iterable."""
        if isinstance(found, Iterable):
            return found
        raise TypeError(
            f"the source of loop '{self._name}' returned {_a(found)}: it must be a generator "
            "function, which takes the last cursor and yields pairs (cursor, item)"
        )


Source = Numbered | Called


_INSTEAD: list[tuple[type | tuple[type, ...], str]] = [
    (dict, "a list, such as list(the_dict.items()), if its order is the same each time"),
    ((set, frozenset), "a sorted list of it, whose order is the same each time"),
    ((str, bytes), "a list of what the loop shall go over"),
    (
        (Iterable, AsyncIterable),
        "a sequence such as a list, or the generator function itself, not what it returned: one "
        "that takes the last cursor (None at first) and yields pairs (cursor, item)",
    ),
    (
        object,
        "a sequence such as a list, or a function that takes the last cursor (None at first) and "
        "yields pairs (cursor, item)",
    ),
]
"""What to pass to ``ctx.each`` in place of an object of a type; the first one that fits counts."""


def source_of(name: str, given: Any, args: tuple[Any, ...]) -> Source:
    """The Source for ``given``, the second argument of ``ctx.each``. Raises TypeError, which says
    what to pass instead."""
    if isinstance(given, Sequence) and not isinstance(given, (str, bytes)):
        if args:
            raise TypeError(f"loop '{name}': a sequence takes no further arguments")
        return Numbered(name, given)
    if callable(given):
        return Called(name, given, args)
    instead = next(instead for kinds, instead in _INSTEAD if isinstance(given, kinds))
    raise TypeError(
        f"loop '{name}': {_a(given)} cannot be resumed where it was left. Pass {instead}"
    )


def pair(name: str, given: Any) -> tuple[Any, Any]:
    """``given``, which a source yielded. Raises TypeError unless it is a pair with a cursor."""
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
    """Eight bytes that differ for another item; an item that is not plain data goes by its type."""
    try:
        raw = data.encode(_ordered(item))
    except (NotPlainData, RecursionError):
        raw = b"type " + type(item).__qualname__.encode(errors="backslashreplace")
    return hashlib.blake2b(raw, digest_size=8).digest()


def _ordered(item: Any, depth: int = cbor.DEPTH) -> Any:
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


def _a(value: Any) -> str:
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    return "None" if value is None else f"an object of type {type(value).__name__}"
