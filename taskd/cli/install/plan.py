"""What ``taskd install`` and ``taskd uninstall`` are to do, decided without doing it.

Pure: what an ``Installation`` wants and what was ``Found`` in, changes out, in the order in which
they are made. Each is idempotent, so that a run that was cut off is finished by the next one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from taskd.cli.install import foreign
from taskd.cli.install.installation import DIRECTORY, FILE, LINK, Entry, Found, Installation
from taskd.errors import ConfigError
from taskd.record import Record


class Change(Record):
    """One thing to do. ``verb``: "create", "update", "keep", "remove" or "run".

    ``path``: of the file, link or directory; ``entry``: what it is to be. ``words``: the command.
    ``note``: what the user should know about it.
    """

    verb: str
    path: str = ""
    entry: Entry | None = None
    words: tuple[str, ...] = ()
    note: str = ""


def install(wanted: Installation, found: Found) -> list[Change]:
    """What is missing or out of date; only "keep" if all is as it should be.

    Raises ConfigError if something is in the way that is not taskd's.
    """
    if others := foreign.all_of(wanted, found):
        advice = (
            ", or install this one under a name of its own: `taskd install --name APP`"
            if wanted.account is not None and len(others) > len(found.programs)
            else ""
        )
        raise ConfigError(
            f"something else on this machine has the name {wanted.account or 'taskd'}: "
            f"{'; '.join(others)}. Nothing was changed: move it out of the way{advice}"
        )
    changes = [*_files(wanted, found), *_links(wanted, found)]
    changed = {change.path for change in changes}
    return [*changes, *_commands(wanted, found, changed), *_marks(wanted, found)]


def _files(wanted: Installation, found: Found) -> Iterable[Change]:
    for path, text in wanted.ours.items():
        there = found.entries.get(path)
        if there is None:
            yield Change("create", path, Entry(FILE, text))
        elif there.kind != FILE:  # under whichever name: a masked unit, say
            raise _in_the_way(path, "a file of taskd's")
        elif there.content != text:
            yield Change("update", path, Entry(FILE, text))
    for path, text in wanted.yours.items():
        if path in found.entries:
            yield Change("keep", path, note="it is yours")
        else:
            yield Change("create", path, Entry(FILE, text))


def _links(wanted: Installation, found: Found) -> Iterable[Change]:
    for path, target in wanted.links.items():
        there = found.entries.get(path)
        if there is None:
            hides = found.hidden.get(path)
            note = f"-> {target}" + (f"; {hides} is another program, behind it" if hides else "")
            yield Change("create", path, Entry(LINK, target), note=note)
        elif there.kind != LINK:
            raise _in_the_way(path, "a link to taskd's own command")
        elif there.content != target:
            note = f"-> {target}, was {there.content}"
            yield Change("update", path, Entry(LINK, target), note=note)


def _in_the_way(path: str, what: str) -> ConfigError:
    return ConfigError(f"{path} is there, and is not {what}: move it out of the way")


def _commands(wanted: Installation, found: Found, changed: set[str]) -> Iterable[Change]:
    if wanted.account and wanted.group:
        if not {wanted.account, wanted.group} <= found.accounts:
            note = f"user {wanted.account}, group {wanted.group}"
            yield Change("run", words=("systemd-sysusers", wanted.sysusers), note=note)
        if found.is_booted and (wanted.tmpfiles in changed or wanted.runtime not in found.entries):
            yield Change("run", words=("systemd-tmpfiles", "--create", wanted.tmpfiles))
    if found.is_booted and changed & {*wanted.unit_files}:
        yield Change("run", words=(*wanted.systemctl, "daemon-reload"))


def _marks(wanted: Installation, found: Found) -> Iterable[Change]:
    """Mark the directories that are ours, so that a purge recognizes them."""
    for path in wanted.marked:
        mark = Change("create", f"{path}/{foreign.MARK}", Entry(FILE, foreign.MARK_TEXT))
        if path not in found.entries:
            yield Change("create", path, Entry(DIRECTORY, wanted.account or ""))
            yield mark
        elif path not in found.holds or foreign.is_marked(path, found):
            continue
        elif foreign.is_foreign(path, wanted, found) or foreign.other_names(path, found):
            yield Change("keep", path, note="not all in it is taskd's: --purge will leave it")
        else:
            yield mark


def uninstall(wanted: Installation, found: Found, purge: bool) -> list[Change]:
    """What is to be taken away; empty if there is nothing. ``purge``: what is yours, too."""
    gone = [path for path in (*wanted.ours, *wanted.links) if _goes(path, wanted, found)]
    changes = [Change("remove", path) for path in gone]
    if any(path in found.entries for path in (*gone, *wanted.enabled)) and (
        any(foreign.is_ours(path, wanted, found) for path in wanted.unit_files)
    ):
        changes.insert(
            0, Change("run", words=(*wanted.systemctl, "--quiet", "disable", *wanted.units))
        )
        if found.is_booted:
            changes.append(Change("run", words=(*wanted.systemctl, "daemon-reload")))
    if not purge:
        return changes
    changes += [
        Change("remove", path)
        for path in _yours(wanted, found)
        if path not in wanted.kept or foreign.is_purged(path, wanted, found)
    ]
    if foreign.owns_the_user(wanted, found):
        if wanted.group in found.accounts:  # the user last: a run that is cut off finds it again
            changes.append(Change("run", words=("groupdel", str(wanted.group))))
        changes.append(Change("run", words=("userdel", str(wanted.account))))
    return changes


def _goes(path: str, wanted: Installation, found: Found) -> bool:
    """Whether an uninstallation removes the file or link at ``path``. A link is ours if it leads
    to a command of the same name, of whichever taskd."""
    there = found.entries.get(path)
    # only installations with a name use the templates
    used = found.siblings if path in wanted.unit_files else found.others
    if there is None or (path in wanted.shared and used):
        return False
    if path in wanted.links:
        same = os.path.basename(there.content) == os.path.basename(path)
        return there.kind == LINK and same and path not in found.programs
    return foreign.is_ours(path, wanted, found)


def _yours(wanted: Installation, found: Found) -> list[str]:
    """The paths that exist, that only a purge removes, and that are not foreign."""
    overrides = () if foreign.has_unit_of(wanted, found) else wanted.overrides
    kept = [path for path in wanted.kept if not foreign.is_foreign(path, wanted, found)]
    return [path for path in (*wanted.yours, *overrides, *kept) if path in found.entries]


def left(wanted: Installation, found: Found, purge: bool = False) -> list[str]:
    """What an uninstallation leaves: paths, and the account."""
    if purge:
        return [path for path in _yours(wanted, found) if path in wanted.kept]
    return _yours(wanted, found) + (
        [f"the user {wanted.account}"] if foreign.owns_the_user(wanted, found) else []
    )
