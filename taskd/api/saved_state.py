"""``taskd.SavedState``: what a task has saved, as a migration sees and changes it.

Used wherever an app's modules are imported; made by ``worker.migrate``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, Final


class _Cursor(Enum):
    FINISHED = "finished"

    def __repr__(self) -> str:
        return "taskd.FINISHED"


FINISHED: Final = _Cursor.FINISHED
"""Stands in ``SavedState.cursors`` for a loop that is over and is not entered again."""


@dataclass(eq=False, slots=True)
class SavedState:
    """What a task has saved; all of it copies, which a migration changes.

    ``args``: the task's arguments by name; those that the caller left out are missing. ``steps``:
    the result of each step by its path; a named sleep is a step whose result is the time to wake
    (Unix seconds, float). ``cursors``: by path, the cursor from which the loop goes on (an index,
    for a sequence), or ``taskd.FINISHED``; None is the same as no entry. ``state``: ``ctx.state``.

    A path is the name of the step or loop, behind the names of the loops around it: ``rows/parse``
    is the step ``parse`` of the current item in the loop ``rows``. ``rename`` changes names.
    """

    args: dict[str, Any]
    steps: dict[str, Any]
    cursors: dict[str, Any]
    state: dict[str, Any]

    def rename(self, old: str, new: str) -> None:
        """Put the step or loop at the path ``old``, and what is below it, at ``new``.

        Nothing happens if nothing is saved there. Raises ValueError if something is at ``new``.
        """
        for kept in (self.steps, self.cursors):
            for path in [each for each in kept if each == old or each.startswith(f"{old}/")]:
                moved = new + path.removeprefix(old)
                if moved in self.steps or moved in self.cursors:
                    raise ValueError(f"cannot rename '{old}' to '{new}': '{moved}' is saved too")
                kept[moved] = kept.pop(path)
