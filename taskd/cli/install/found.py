"""What is on the machine before ``taskd install`` or ``taskd uninstall`` changes it. Pure.

``machine`` looks, ``foreign`` and ``plan`` decide by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from taskd.record import Record

FILE, LINK, DIRECTORY, OTHER = "file", "link", "directory", "other"


class Entry(Record):
    """What is at a path. ``content``: a file's text, a link's target, or the name of the user who
    is to own a directory."""

    kind: str
    content: str = ""


class Found(Record):
    """The machine as it is.

    ``entries``: path to entry of the paths of an installation that exist. ``holds``: path to names
    of its directories that may be read. ``owned``: its directories that belong to the service's
    user. ``accounts``: which of its user and its group exist. ``home``: the user's home directory.
    ``members``: group to members, as far as files name them. ``programs``: its links that lead to
    another program. ``hidden``: link to the program of the same name that it hides in $PATH.
    ``others``: another taskd of the system is installed; ``siblings``: one with a name
    (``--name``). ``is_booted``: the service manager can be reached. ``is_running``: the service is
    active, or on its way to or from there.
    """

    entries: dict[str, Entry]
    holds: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    owned: frozenset[str] = frozenset()
    accounts: frozenset[str] = frozenset()
    home: str | None = None
    members: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    programs: frozenset[str] = frozenset()
    hidden: Mapping[str, str] = MappingProxyType({})
    others: bool = False
    siblings: bool = False
    is_booted: bool = True
    is_running: bool = False
