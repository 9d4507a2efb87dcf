"""Record: typing.NamedTuple without its cost at import, which is part of a deploy's pause.

typing.NamedTuple compiles each annotation of a class, and a ``__new__``: 230 µs a class. A Record
takes its fields from the names of the annotations and compiles ``__new__`` at its first instance:
15 µs, and 50 µs then. All else is as with NamedTuple, which is what type checkers are shown: fields
by name and position, defaults, methods, equality, pickles, patterns. A class that derives from a
record may add methods, not fields.

Protocol: typing.Protocol without its cost at import (200 µs a class), for type checkers alone.
"""

from __future__ import annotations

from _collections import _tuplegetter  # type: ignore[import-not-found]
from typing import TYPE_CHECKING, Any

__all__ = ["Protocol", "Record"]


class _Meta(type):
    """Turns the annotated names of a new class into its fields."""

    def __new__(cls, name: str, bases: tuple[type, ...], space: dict[str, Any]) -> _Meta:
        space.setdefault("__slots__", ())
        if fields := tuple(_annotations(space)):
            space["_fields"] = space["__match_args__"] = fields
            space["_field_defaults"] = {each: space[each] for each in fields if each in space}
            for position, field in enumerate(fields):
                space[field] = _tuplegetter(position, None)
        return super().__new__(cls, name, bases, space)


def _annotations(space: dict[str, Any]) -> Any:
    evaluate = space.get("__annotate_func__")  # Python 3.14, without the __future__ import
    if evaluate is None:
        return space.get("__annotations__", ())
    import annotationlib  # type: ignore[import-not-found]

    return annotationlib.call_annotate_function(evaluate, annotationlib.Format.STRING)


if TYPE_CHECKING:
    from typing import NamedTuple as Record, Protocol
else:

    class Protocol:
        """The base of all protocols: empty."""

    class Record(tuple, metaclass=_Meta):
        """The base of all records."""

        _fields = __match_args__ = ()
        _field_defaults = {}  # noqa: RUF012 - annotated, it would be a field

        def __new__(cls, *values, **named):
            names = "".join(f"{name}, " for name in cls._fields)
            made = eval(f"lambda _cls, {names}: _new(_cls, ({names}))", {"_new": tuple.__new__})
            made.__defaults__ = tuple(cls._field_defaults.values())
            made.__qualname__ = f"{cls.__qualname__}.__new__"
            cls.__new__ = staticmethod(made)
            return made(cls, *values, **named)

        @classmethod
        def _make(cls, values):
            made = tuple.__new__(cls, values)
            if len(made) != len(cls._fields):
                raise TypeError(f"{cls.__name__} has {len(cls._fields)} fields, not {len(made)}")
            return made

        def __getnewargs__(self):
            return tuple(self)

        def __repr__(self):
            told = ", ".join(f"{name}={value!r}" for name, value in self._asdict().items())
            return f"{type(self).__name__}({told})"

        def _asdict(self):
            return dict(zip(self._fields, self, strict=True))

        def _replace(self, /, **changes):
            made = self._make(map(changes.pop, self._fields, self))
            if changes:
                raise TypeError(f"{type(self).__name__} has no {', '.join(changes)}")
            return made

        __replace__ = _replace
