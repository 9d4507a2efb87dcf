"""What is on the machine before ``taskd install`` or ``taskd uninstall`` changes it. Pure.

``machine`` looks, ``foreign`` and ``plan`` decide by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from taskd.record import Record

FILE, LINK, DIRECTORY, OTHER = "file", "link", "directory", "other"


class Entry(Record):
    """What is at a path: its kind, and the text of a file, the target of a link, or the name of who
    is to own a directory."""

    kind: str
    content: str = ""


class Found(Record):
    """The machine as it is. ``entries``: of each path that matters, those that exist.

    ``holds``: the names in each directory that matters and may be read. ``owned``: the directories
    that belong to the service's user. ``accounts``: the names of users and groups that exist;
    ``home``: of the service's user; ``members``: of the groups, as far as files name them.
    ``programs``: the links of ours that lead to another program. ``hidden``: programs that ours
    hide. ``others``: whether another taskd of this kind is installed, ``siblings``: one of several
    (``--name``). ``is_booted``: whether there is a service manager to speak with. ``is_running``:
    the service is active, or on its way to or from there.
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
