"""``Secret``: a value that is plain data and is not shown.

Pure. On the wire, in the store (a file that is the daemon's alone) and in what a task saves it
stands as it is, under a tag of its own; ``repr``, logs and errors show four dots.
"""

from __future__ import annotations

from typing import Any, Generic, NoReturn, TypeVar

T = TypeVar("T", str, bytes)

SHOWN = "••••"

MARK = b"\xd9\xd3\x58"
"""How each begins in plain-data encoding. Other bytes may look like it: decode them to know."""

SHORTEST = 4
"""Characters; ``hide`` skips a shorter secret, which would be found everywhere."""

SHORTEST_LINE = 8
"""Characters; ``hide`` skips a shorter line of a secret of several lines."""


class Secret(Generic[T]):
    """A password, a token: text or bytes that neither logs, ``repr``, JSON nor errors show.

    ``reveal()`` gives the value. Two are equal if their values are. It can stand wherever plain
    data can: in arguments, ``ctx.state`` and results, also within lists and dicts.
    """

    __slots__ = ("_value",)

    _value: T

    def __init__(self, value: T) -> None:
        """Raises TypeError unless it is exactly str or bytes, ValueError if it is no Unicode."""
        if type(value) is not str and type(value) is not bytes:
            raise TypeError(f"a Secret holds str or bytes, not {type(value).__name__}")
        if isinstance(value, str) and any("\ud800" <= char <= "\udfff" for char in value):
            raise ValueError("a Secret that is text must be valid Unicode; else use its bytes")
        object.__setattr__(self, "_value", value)

    def reveal(self) -> T:
        """The value itself."""
        return self._value

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError("a Secret does not change")

    def __repr__(self) -> str:
        return f"Secret('{SHOWN}')"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return bool(type(self._value) is type(other._value) and self._value == other._value)

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __bool__(self) -> bool:
        return bool(self._value)

    def __copy__(self, memo: object = None) -> Secret[T]:
        return self

    __deepcopy__ = __copy__

    def __reduce_ex__(self, _: object) -> NoReturn:
        raise TypeError("a Secret is not pickled, which would show it: pass secret.reveal()")


_HOLDERS = (dict, list, tuple, set)


def found_in(value: Any) -> list[Secret[Any]]:
    """Every Secret in a value; other objects in it, which need not be plain data, are skipped."""
    found: list[Secret[Any]] = []
    waiting: list[Any] = [value]
    seen: set[int] = set()
    while waiting:
        each = waiting.pop()
        kind = type(each)  # not isinstance: what an app's object says of its class is its own code
        if issubclass(kind, Secret):
            found.append(each)
        elif issubclass(kind, _HOLDERS) and id(each) not in seen:
            seen.add(id(each))  # it may hold itself
            own = next(holder for holder in _HOLDERS if issubclass(kind, holder))
            waiting += own.__iter__(each)  # of Python's own type: a subclass's may do anything
            if own is dict:
                waiting += dict.values(each)
    return found


def hide(text: str, secrets: list[Secret[Any]]) -> str:
    """``text`` with dots in place of each of ``secrets``, as it is and as ``repr`` writes it.

    A line of a secret of several lines is hidden too: an exception's report indents each line.
    """
    found, lines = set(), set()
    for secret in secrets:
        value = secret.reveal()
        shown = value if isinstance(value, str) else value.decode(errors="replace")
        found |= {shown, repr(value).removeprefix("b")[1:-1]}
        lines |= {line.strip() for line in shown.splitlines()}
    forms = {form for form in found if len(form) >= SHORTEST}
    forms |= {line for line in lines if len(line) >= SHORTEST_LINE}
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, SHOWN)
    return text
