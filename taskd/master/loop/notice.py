"""What a room tells of itself, to whoever listens: so lower rooms need not know upper ones.

The composition root (``master.master``) connects both ends. A listener is called at once, in the
order of subscription; one that has more to do than to note it asks a ``Look``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, ParamSpec

_Told = ParamSpec("_Told")


class Notice(Generic[_Told]):
    """``notice(...)`` tells all listeners."""

    __slots__ = ("_listeners",)

    def __init__(self) -> None:
        self._listeners: list[Callable[_Told, object]] = []

    def to(self, *listeners: Callable[_Told, object]) -> None:
        """Call them, too, from now on."""
        self._listeners += listeners

    def __call__(self, *args: _Told.args, **kwargs: _Told.kwargs) -> None:
        for listener in self._listeners:
            listener(*args, **kwargs)
