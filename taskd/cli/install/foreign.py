"""Which files, directories and accounts of taskd's names belong to another program.

Pure; for ``plan``. Debian 12 has another package `taskd` (Taskwarrior's server) with the unit
taskd.service, /etc/taskd and /var/lib/taskd, and its documentation has administrators write such a
unit, a user `taskd` and commands in /usr/local/bin by hand. Ours are told by

    units and the like    their text names `taskd install` (``WRITTEN``)
    state, logs           the file ``MARK``, which `taskd install` makes in a directory that is new,
                          or that holds a daemon's files and nothing else
    the user              its home is home/ in the state directory, as our sysusers.d file has it
    groups                they go by the user; without it, one that has members is foreign
    the sockets' place    belongs to the user
    links                 lead to a command of taskd's, or nowhere

Invariant: an installation takes over nothing foreign, and an uninstallation removes only what is
known to be ours.
"""

from __future__ import annotations

import re

from taskd.cli.install.installation import FILE, Found, Installation

WRITTEN = "`taskd install"
"""In the text of every file of ours whose name another program's file may have."""

MARK = ".taskd-supervisor"
MARK_TEXT = "This directory is taskd-supervisor's: `taskd uninstall --purge` removes it whole.\n"

_OURS = re.compile(
    r"store\.db.*|lock|confirmed|proved|rejected|handoff|after-drain|slots|zygotes|scratch|home|tmp"
    r"|logs|\d+\.log|taskd\.log.*|(control|submit|worker)\.sock|taskd\.pid|swept|\.taskd-supervisor"
)
"""The names in a daemon's directories."""

_SHOWN = 3


def all_of(wanted: Installation, found: Found) -> list[str]:
    """Everything foreign that is in an installation's way, each as a phrase."""
    foreign = _units(wanted, found) + [
        _with_what_it_holds(path, found)
        for path in (*wanted.marked, wanted.runtime)
        if is_foreign(path, wanted, found)
    ]
    names = found.holds.get(wanted.shelf, ())
    if names and not any(name.endswith(".toml") for name in names):
        foreign.append(_with_what_it_holds(wanted.shelf, found))
    if wanted.account is not None and found.home is None:
        foreign += [f"the group {group} (with {', '.join(members[:_SHOWN])})"
                    for group, members in sorted(found.members.items()) if members]  # fmt: skip
    elif wanted.account is not None and not owns_the_user(wanted, found):
        foreign.append(
            f"the user {wanted.account} (home {found.home}; ours has {wanted.kept[0]}/home)"
        )
    return foreign + [f"{path}, which leads to another program" for path in sorted(found.programs)]


def is_ours(path: str, wanted: Installation, found: Found) -> bool:
    """Whether the file at ``path``, one of ``wanted.ours``, exists and is not foreign."""
    there = found.entries.get(path)
    return there is not None and (WRITTEN not in wanted.ours[path] or WRITTEN in there.content)


def has_unit_of(wanted: Installation, found: Found) -> bool:
    """Whether the unit that systemd knows by our name is another program's."""
    own = any(is_ours(path, wanted, found) for path in wanted.unit_files)
    return not own and bool(_units(wanted, found))


def is_marked(path: str, found: Found) -> bool:
    """Whether the directory at ``path`` bears our mark."""
    return MARK in found.holds.get(path, ())


def is_foreign(path: str, wanted: Installation, found: Found) -> bool:
    """Whether the directory at ``path`` exists and is neither ours nor free."""
    names = other_names(path, found)
    if path == wanted.runtime:
        return bool(names) and path not in found.owned
    if is_marked(path, found) or not found.holds.get(path):
        return False
    if any("store.db" in found.holds.get(each, ()) for each in wanted.marked):
        return False  # a daemon of ours lives there, whatever else does
    return bool(names) or path not in found.owned


def is_purged(path: str, wanted: Installation, found: Found) -> bool:
    """Whether a purge removes a directory of ours. If another program of our name was installed
    after the directory was marked, only one that holds a daemon's files alone is removed."""
    if path == wanted.runtime:
        return path in found.owned
    if _units(wanted, found) and other_names(path, found):
        return False
    return any(
        f"{path}/".startswith(f"{each}/") and is_marked(each, found) for each in wanted.marked
    )


def owns_the_user(wanted: Installation, found: Found) -> bool:
    """Whether the service's user exists and is the one that our sysusers.d file makes."""
    return wanted.account is not None and found.home == f"{wanted.kept[0]}/home"


def other_names(path: str, found: Found) -> list[str]:
    """What the directory at ``path`` holds that no daemon of ours makes."""
    return [name for name in found.holds.get(path, ()) if not _OURS.fullmatch(name)]


def _units(wanted: Installation, found: Found) -> list[str]:
    """The paths of foreign units and the like."""
    own = [
        path
        for path in wanted.ours
        if path in found.entries
        and found.entries[path].kind == FILE  # of others, a masked unit say, the plan complains
        and not is_ours(path, wanted, found)
    ]
    return [
        *own,
        *[
            path
            for path in wanted.rivals
            if path in found.entries
            and f"/usr{path}" not in found.entries  # /lib is a link to /usr/lib
            and WRITTEN not in found.entries[path].content
        ],
    ]


def _with_what_it_holds(path: str, found: Found) -> str:
    names = other_names(path, found) or list(found.holds[path])
    more = ", …" if len(names) > _SHOWN else ""
    return f"{path} (with {', '.join(sorted(names)[:_SHOWN])}{more})"
