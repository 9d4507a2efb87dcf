"""``ctx.submit``: a task that belongs to the one that runs, its parent.

The daemon keeps it by its name among the parent's children, so that a parent that runs again finds
it and does not submit it twice; nothing of it stands in the saved state.
"""

from __future__ import annotations

from typing import Any, Protocol


class Child(Protocol):
    """A handle of it, as a client gives it (``TaskHandle``)."""

    id: int

    def status(self) -> Any: ...
    def result(self, timeout: float | None = None) -> Any: ...


class Submittable(Protocol):
    """A task: ``using()`` is how to submit it. Or just that: ``of`` makes it a child, with its
    name."""

    def using(self) -> Any: ...


class HowTo(Protocol):
    def of(self, parent: int, attempt: int) -> tuple[str, Any]: ...


class Children:
    """The children that one attempt has submitted."""

    def __init__(self, parent: str, attempt: int) -> None:
        self._parent = parent
        self._attempt = attempt
        self._names: set[str] = set()

    def submit(
        self, task: Submittable | HowTo, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Child:
        """Raises ValueError for a name that this attempt has used."""
        how = task.using() if hasattr(task, "using") else task
        if not hasattr(how, "of"):
            raise TypeError(
                f"ctx.submit takes a task or task.using(…), and its arguments, not {task!r:.80}"
            )
        name, child = how.of(int(self._parent), self._attempt)
        if name in self._names:
            raise ValueError(
                f"two children are named {name!r}: give each a name of its own, "
                f'ctx.submit(task.using(name="{name}-2"), …)'
            )
        handle: Child = child.submit(*args, **kwargs)
        self._names.add(name)
        return handle
