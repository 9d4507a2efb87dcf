"""What ``taskd install`` and ``taskd uninstall`` are to do, decided without doing it.

Pure: what a ``Site`` wants and what was ``Found`` in, changes out, in the order in which they are
made. Each is idempotent, so that a run that was cut off is finished by the next one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NamedTuple

from taskd.cli.site import Site
from taskd.errors import ConfigError

FILE, LINK, DIRECTORY, OTHER = "file", "link", "directory", "other"


class Entry(NamedTuple):
    """What is at a path: its kind, and the text of a file or the target of a link."""

    kind: str
    content: str = ""


class Found(NamedTuple):
    """The machine as it is. ``entries``: of each path that matters, those that exist.

    ``accounts``: the names of users and groups that exist. ``others``: whether another taskd of
    this kind is installed. ``is_booted``: whether there is a service manager to speak with.
    ``is_running``: the service is active, or on its way to or from there.
    """

    entries: dict[str, Entry]
    accounts: frozenset[str] = frozenset()
    others: bool = False
    is_booted: bool = True
    is_running: bool = False


class Change(NamedTuple):
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
    changes = [*_our_files(site, found), *_your_files(site, found), *_links(site, found)]
    changed = {change.path for change in changes}
    return changes + _commands(site, found, changed)


def _our_files(site: Site, found: Found) -> Iterable[Change]:
    for path, text in site.ours.items():
        there = found.entries.get(path)
        if there is None:
            yield Change("create", path, Entry(FILE, text))
        elif there.kind != FILE:
            raise _in_the_way(path, "a file of taskd's")
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
            yield Change("create", path, Entry(LINK, target), note=f"-> {target}")
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
    if found.is_booted and changed & _unit_files(site):
        commands.append(_run(*site.systemctl, "daemon-reload"))
    return commands


def _unit_files(site: Site) -> set[str]:
    return {path for path in site.ours if path.endswith((".service", ".socket"))}


def _run(*words: str, note: str = "") -> Change:
    return Change("run", words=words, note=note)


def uninstall(site: Site, found: Found, purge: bool) -> list[Change]:
    """What is to be taken away; empty if there is nothing. ``purge``: what is yours, too."""
    gone = [path for path in (*site.ours, *site.links) if _goes(path, site, found)]
    changes = [Change("remove", path) for path in gone]
    if any(path in found.entries for path in (*gone, *site.enabled)) and (
        _unit_files(site) & found.entries.keys()
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
    if there is None or (path in site.shared and found.others):
        return False
    if path in site.links:
        return there.kind == LINK and os.path.basename(there.content) == os.path.basename(path)
    return True


def _purge(site: Site, found: Found) -> Iterable[Change]:
    for path in (*site.yours, *site.overrides, *site.kept):
        if path in found.entries:
            yield Change("remove", path)
    if site.account in found.accounts:
        yield _run("userdel", str(site.account))
    if site.group in found.accounts:
        yield _run("groupdel", str(site.group))


def left(site: Site, found: Found) -> list[str]:
    """What an uninstallation without ``purge`` leaves: paths, and the account."""
    there = [path for path in (*site.yours, *site.overrides, *site.kept) if path in found.entries]
    return there + ([f"the user {site.account}"] if site.account in found.accounts else [])
