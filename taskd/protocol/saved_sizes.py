"""How large what a task keeps is, value by value: a part of ``saved``. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from taskd.protocol import data

EMPTY_STATE = data.encode({})


class Account:
    """How large each kept value is, and which paths lie directly below which.

    Invariant: each path in ``sizes``, and each one above it, is in ``children`` of the path above
    it. "" in ``sizes`` is ``state``.
    """

    __slots__ = ("children", "sizes", "total")

    def __init__(self, state: int, values: Iterable[tuple[str, int]]) -> None:
        """From the encoded size of the state, and those of steps and cursors with their paths."""
        self.sizes: dict[str, int] = {}
        self.children: dict[str, dict[str, None]] = {}
        self.total = 0
        self.keep("", state)
        for path, size in values:
            self.keep(path, size)

    def keep(self, path: str, size: int) -> None:
        self.total -= self.sizes.get(path, 0)
        self.sizes[path] = size + len(path)
        self.total += size + len(path)
        while path:
            above = path.rpartition("/")[0]
            siblings = self.children.setdefault(above, {})
            if path in siblings:
                return
            siblings[path] = None
            path = above

    def below(self, path: str) -> list[str]:
        """Every path below ``path``, each after the one it is below of."""
        found: list[str] = []
        waiting = list(self.children.get(path, ()))
        while waiting:
            each = waiting.pop()
            found.append(each)
            waiting.extend(self.children.get(each, ()))
        return found

    def forget(self, path: str) -> None:
        self.total -= self.sizes.pop(path, 0)
        self.children.pop(path, None)
        self.children.get(path.rpartition("/")[0], {}).pop(path, None)
