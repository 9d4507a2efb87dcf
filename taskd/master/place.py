"""Slots that are not under their own names, put there again. Runs in the master, at a start.

A slot says in its header whose it is, and is looked for by name. Whoever moves one (a restore from
a backup, a hand that meant well) must not make two workers' tasks trade what they have saved.
"""

from __future__ import annotations

import contextlib
import os

from taskd import log
from taskd.errors import Error
from taskd.slot import layout, reader

_ASIDE = ".moved"


def put_right(directory: str) -> None:
    """Give every slot its own name, where no other file has it. Raises OSError."""
    strays = {name: right for name in os.listdir(directory) if (right := _strayed(directory, name))}
    for name in strays:  # first out of each other's way
        os.rename(os.path.join(directory, name), os.path.join(directory, name + _ASIDE))
    for name, right in strays.items():
        taken = os.path.lexists(os.path.join(directory, right))
        log.warning("a slot under another's name", name=name, owner=right, put_right=not taken)
        there = name if taken else right
        os.rename(os.path.join(directory, name + _ASIDE), os.path.join(directory, there))


def _strayed(directory: str, name: str) -> str | None:
    """The name that it should have, if it is a slot and has another."""
    if not name.endswith(layout.SUFFIX):
        return None
    with contextlib.suppress(Error, OSError):
        fd = os.open(os.path.join(directory, name), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            right = layout.file_name(reader.read_header(fd).worker)
        finally:
            os.close(fd)
        return None if right == name else right
    return None
