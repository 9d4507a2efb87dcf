"""Slots that are not under their own names, put there again. Runs in the master, at a start.

A slot says in its header whose it is, and is looked for by name. One that was moved (a restore from
a backup, a hand that meant well) must not make two workers' tasks trade what they have saved.
"""

from __future__ import annotations

import contextlib
import os

from taskd import log
from taskd.errors import Error
from taskd.slot import layout, reader

_ASIDE = ".moved"
"""Ends the name of a slot on its way: a master that dies before the end leaves it to the next."""


def put_right(directory: str) -> None:
    """Give every slot its own name, where no other file has it. Raises OSError."""
    strays = {name: right for name in os.listdir(directory) if (right := _strayed(directory, name))}
    aside = {name: name if name.endswith(_ASIDE) else name + _ASIDE for name in strays}
    for name in strays:  # first out of each other's way
        os.rename(os.path.join(directory, name), os.path.join(directory, aside[name]))
    for name, right in strays.items():
        taken = os.path.lexists(os.path.join(directory, right))
        log.warning("a slot under another's name", name=name, owner=right, put_right=not taken)
        if not taken:  # else it stays aside: the name that it had may be another's by now
            os.rename(os.path.join(directory, aside[name]), os.path.join(directory, right))


def _strayed(directory: str, name: str) -> str | None:
    """The name that it should have, if it is a slot and has another."""
    if not name.endswith((layout.SUFFIX, _ASIDE)):
        return None
    with contextlib.suppress(Error, OSError):
        fd = reader.open_slot(os.path.join(directory, name))
        try:
            right = layout.file_name(reader.read_header(fd).worker)
        finally:
            os.close(fd)
        return None if right == name else right
    return None
