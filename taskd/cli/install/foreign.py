"""What bears the name of something of ours on this machine, and is somebody else's.

Pure; for ``install_plan``. Debian 12 has another package `taskd` (Taskwarrior's server) with the
unit taskd.service, /etc/taskd and /var/lib/taskd, and its own documentation has administrators
write such a unit, a user `taskd` and commands in /usr/local/bin by hand. Ours is told by

    units and the like    their text names `taskd install` (``WRITTEN``)
    state, logs           the file ``MARK``, which `taskd install` makes in a directory that is new,
                          or that holds a daemon's files and nothing else
    the user              its home is home/ in the state directory, as our sysusers.d file has it
    groups                they go by the user; without it, one that has members is somebody's
    the sockets' place    belongs to the user
    links                 lead to a command of taskd's, or nowhere

Invariant: an installation takes over nothing of a stranger's, and an uninstallation removes nothing
that is not told to be ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from taskd.cli.install.found import Found
from taskd.cli.install.installation import Site

WRITTEN = "`taskd install"
"""In the text of every file of ours whose name somebody else's may have."""

MARK = ".taskd-supervisor"
MARK_TEXT = "This directory is taskd-supervisor's: `taskd uninstall --purge` removes it whole.\n"

_OURS = re.compile(
    r"store\.db.*|lock|confirmed|rejected|handoff|after-drain|slots|zygotes|scratch|home|tmp|logs"
    r"|\d+\.log|taskd\.log.*|(control|submit|worker)\.sock|taskd\.pid|swept|\.taskd-supervisor"
)
"""The names in a daemon's directories."""

_SHOWN = 3


def all_of(site: Site, found: Found) -> list[str]:
    """Whatever is in an installation's way, each in words."""
    programs = [f"{path}, which leads to another program" for path in sorted(found.programs)]
    return [*_units(site, found), *_directories(site, found), *_accounts(site, found), *programs]


def is_ours(path: str, site: Site, found: Found) -> bool:
    """Whether the file of ours at ``path`` is one, and no stranger's of the same name."""
    there = found.entries.get(path)
    return there is not None and (WRITTEN not in site.ours[path] or WRITTEN in there.content)


def has_unit_of(site: Site, found: Found) -> bool:
    """Whether the unit that systemd knows by our name is somebody else's."""
    own = any(is_ours(path, site, found) for path in site.unit_files)
    return not own and bool(_units(site, found))


def is_marked(path: str, found: Found) -> bool:
    return MARK in found.holds.get(path, ())


def is_a_strangers(path: str, site: Site, found: Found) -> bool:
    """Whether a directory that is there is neither ours nor free."""
    names = _other_names(path, found)
    if path == site.runtime:
        return bool(names) and path not in found.owned
    if is_marked(path, found) or not found.holds.get(path):
        return False
    if any("store.db" in found.holds.get(each, ()) for each in site.marked):
        return False  # a daemon of ours lives there, whatever else does
    return bool(names) or path not in found.owned


def may_be_marked(path: str, site: Site, found: Found) -> bool:
    """Whether it is ours as a whole, so that a purge may take all of it."""
    return not is_a_strangers(path, site, found) and not _other_names(path, found)


def is_purged(path: str, site: Site, found: Found) -> bool:
    """Whether a directory of ours goes with a purge. Beside another program of our name, which came
    after the mark, it must hold nothing but what a daemon makes."""
    if path == site.runtime:
        return path in found.owned
    if _units(site, found) and _other_names(path, found):
        return False
    above = [each for each in site.marked if f"{path}/".startswith(f"{each}/")]
    return any(is_marked(each, found) for each in above)


def owns_the_user(site: Site, found: Found) -> bool:
    return site.account is not None and found.home == f"{site.kept[0]}/home"


def _other_names(path: str, found: Found) -> list[str]:
    return [name for name in found.holds.get(path, ()) if not _OURS.fullmatch(name)]


def _units(site: Site, found: Found) -> list[str]:
    own = [
        path
        for path in site.ours
        if path in found.entries
        and found.entries[path].kind == "file"  # of others, a masked unit say, the plan complains
        and not is_ours(path, site, found)
    ]
    theirs = [
        path
        for path in site.rivals
        if path in found.entries
        and f"/usr{path}" not in found.entries  # /lib is a link to /usr/lib
        and WRITTEN not in found.entries[path].content
    ]
    return [*own, *theirs]


def _directories(site: Site, found: Found) -> Iterator[str]:
    for path in (*site.marked, site.runtime):
        if is_a_strangers(path, site, found):
            yield _with_what_it_holds(path, found)
    names = found.holds.get(site.shelf, ())
    if names and not any(name.endswith(".toml") for name in names):
        yield _with_what_it_holds(site.shelf, found)


def _with_what_it_holds(path: str, found: Found) -> str:
    names = _other_names(path, found) or list(found.holds[path])
    more = ", …" if len(names) > _SHOWN else ""
    return f"{path} (with {', '.join(sorted(names)[:_SHOWN])}{more})"


def _accounts(site: Site, found: Found) -> Iterator[str]:
    if site.account is None:
        return
    if found.home is not None and not owns_the_user(site, found):
        yield f"the user {site.account} (home {found.home}; ours has {site.kept[0]}/home)"
    for group, members in sorted(found.members.items()) if found.home is None else ():
        if members:
            yield f"the group {group} (with {', '.join(members[:_SHOWN])})"
