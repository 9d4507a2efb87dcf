"""What ``taskd install`` and ``taskd uninstall`` are to do, decided without doing it.

Pure: what a ``Site`` wants and what was ``Found`` in, changes out, in the order in which they are
made. Each is idempotent, so that a run that was cut off is finished by the next one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from taskd.cli.install import foreign
from taskd.cli.install.found import DIRECTORY, FILE, LINK, Entry, Found
from taskd.cli.install.installation import Site
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


def install(site: Site, found: Found) -> list[Change]:
    """What is missing or out of date; empty but for "keep" if all is as it should be.

    Raises ConfigError if something is in the way that is not taskd's.
    """
    _refuse_strangers(site, found)
    changes = [*_our_files(site, found), *_your_files(site, found), *_links(site, found)]
    changed = {change.path for change in changes}
    return [*changes, *_commands(site, found, changed), *_marks(site, found)]


def _refuse_strangers(site: Site, found: Found) -> None:
    theirs = foreign.all_of(site, found)
    if not theirs:
        return
    advice = ""
    if site.account is not None and len(theirs) > len(found.programs):
        advice = ", or install this one under a name of its own: `taskd install --name APP`"
    raise ConfigError(
        f"something else on this machine has the name {site.account or 'taskd'}: "
        f"{'; '.join(theirs)}. Nothing was changed: move it out of the way{advice}"
    )


def _our_files(site: Site, found: Found) -> Iterable[Change]:
    for path, text in site.ours.items():
        there = found.entries.get(path)
        if there is None:
            yield Change("create", path, Entry(FILE, text))
        elif there.kind != FILE:
            raise _in_the_way(path, "a file of taskd's")  # of whatever name: a masked unit, say
        elif there.content != text:
            yield Change("update", path, Entry(FILE, text))


def _your_files(site: Site, found: Found) -> Iterable[Change]:
    for path, text in site.yours.items():
        if path in found.entries:
            yield Change("keep", path, note="it is yours")
        else:
            yield Change("create", path, Entry(FILE, text))


def _links(site: Site, found: Found) -> Iterable[Change]:
    for path, target in site.links.items():
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


def _commands(site: Site, found: Found, changed: set[str]) -> list[Change]:
    commands = []
    if site.account and site.group:
        if not {site.account, site.group} <= found.accounts:
            note = f"user {site.account}, group {site.group}"
            commands.append(_run("systemd-sysusers", site.sysusers, note=note))
        if found.is_booted and (site.tmpfiles in changed or site.runtime not in found.entries):
            commands.append(_run("systemd-tmpfiles", "--create", site.tmpfiles))
    if found.is_booted and changed & {*site.unit_files}:
        commands.append(_run(*site.systemctl, "daemon-reload"))
    return commands


def _marks(site: Site, found: Found) -> Iterable[Change]:
    """The directories that are ours, so that a purge knows them again."""
    for path in site.marked:
        mark = f"{path}/{foreign.MARK}"
        if path not in found.entries:
            yield Change("create", path, Entry(DIRECTORY, site.account or ""))
            yield Change("create", mark, Entry(FILE, foreign.MARK_TEXT))
        elif path in found.holds and not foreign.is_marked(path, found):
            if foreign.may_be_marked(path, site, found):
                yield Change("create", mark, Entry(FILE, foreign.MARK_TEXT))
            else:
                yield Change("keep", path, note="not all in it is taskd's: --purge will leave it")


def _run(*words: str, note: str = "") -> Change:
    return Change("run", words=words, note=note)


def uninstall(site: Site, found: Found, purge: bool) -> list[Change]:
    """What is to be taken away; empty if there is nothing. ``purge``: what is yours, too."""
    gone = [path for path in (*site.ours, *site.links) if _goes(path, site, found)]
    changes = [Change("remove", path) for path in gone]
    if any(path in found.entries for path in (*gone, *site.enabled)) and (
        any(foreign.is_ours(path, site, found) for path in site.unit_files)
    ):
        changes.insert(0, _run(*site.systemctl, "--quiet", "disable", *site.units))
        if found.is_booted:
            changes.append(_run(*site.systemctl, "daemon-reload"))
    if purge:
        changes += _purge(site, found)
    return changes


def _goes(path: str, site: Site, found: Found) -> bool:
    """A link counts as ours if it leads to a command of the same name, of whichever taskd."""
    there = found.entries.get(path)
    # the templates are of those that have a name alone
    used = found.siblings if path in site.unit_files else found.others
    if there is None or (path in site.shared and used):
        return False
    if path in site.links:
        same = os.path.basename(there.content) == os.path.basename(path)
        return there.kind == LINK and same and path not in found.programs
    return foreign.is_ours(path, site, found)


def _purge(site: Site, found: Found) -> Iterable[Change]:
    for path in _yours(site, found):
        if path not in site.kept or foreign.is_purged(path, site, found):
            yield Change("remove", path)
    if foreign.owns_the_user(site, found):
        if site.group in found.accounts:  # the user last: whatever cuts this off, it is found again
            yield _run("groupdel", str(site.group))
        yield _run("userdel", str(site.account))


def _yours(site: Site, found: Found) -> list[str]:
    """What there is of what only a purge takes, and is no stranger's."""
    overrides = () if foreign.has_unit_of(site, found) else site.overrides
    kept = [path for path in site.kept if not foreign.is_a_strangers(path, site, found)]
    return [path for path in (*site.yours, *overrides, *kept) if path in found.entries]


def left(site: Site, found: Found, purge: bool = False) -> list[str]:
    """What an uninstallation leaves: paths, and the account."""
    if purge:
        return [path for path in _yours(site, found) if path in site.kept]
    user = [f"the user {site.account}"] if foreign.owns_the_user(site, found) else []
    return _yours(site, found) + user
