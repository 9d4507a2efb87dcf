"""Notices: a lower part of the master calls listeners of upper parts that it does not import.

The composition root (``master.master``) connects both. A listener is called at once, in the order
of subscription; a listener with more to do than to note the fact asks a ``Look``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, ParamSpec

_Told = ParamSpec("_Told")


class Notice(Generic[_Told]):
    """``notice(...)`` calls all listeners."""

    __slots__ = ("_listeners",)

    def __init__(self) -> None:
        self._listeners: list[Callable[_Told, object]] = []

    def to(self, *listeners: Callable[_Told, object]) -> None:
        """Call these listeners as well from now on."""
        self._listeners += listeners

    def __call__(self, *args: _Told.args, **kwargs: _Told.kwargs) -> None:
        for listener in self._listeners:
            listener(*args, **kwargs)
