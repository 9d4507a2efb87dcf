"""What an installation consists of, and what is found of it on the machine: files, links,
accounts and directories. ``machine`` looks, ``foreign`` and ``plan`` decide by both.

Runs in ``taskd install`` and ``taskd uninstall``; touches nothing. The texts are those of the
folder systemd/ (package data here), which is their only source. There are three kinds:
the system's one taskd, one of several apps on a machine (``--name``), and a user's own
(``--user``). For an app, every name ``taskd`` in accounts and directories becomes ``taskd-NAME``;
its units are instances of templates, which all apps share.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from types import MappingProxyType

from taskd import paths
from taskd.cli.outcome import UsageError
from taskd.record import Record

COMMANDS = ("taskd", "taskctl")

UNITS = "/etc/systemd/system"
SYSUSERS = "/etc/sysusers.d"
CONFIG = "/etc/taskd"
STOP_POST = "stop-post"
"""The script that the units run after each end of the daemon."""

_OTHER_UNITS = tuple(
    f"{above}/systemd/system" for above in ("/run", "/usr/local/lib", "/usr/lib", "/lib")
)

_NAME = re.compile(r"[a-z][a-z0-9-]{0,17}")
"""Of an app: a group's name has 31 characters at most, and `taskd-NAME-submit` is one."""

FILE, LINK, DIRECTORY, OTHER = "file", "link", "directory", "other"


class Installation(Record):
    """One installation: every path, unit and account that belongs to it.

    ``ours``: path to text of the files that are written again when they differ. ``yours``: path to
    text of those that are written once and never again. ``links``: path to target. ``shared``:
    those of ``ours`` and ``links`` that other installations on the machine use too.
    ``unit_files``: those of ``ours`` that are units. ``service``: the service's name. ``units``:
    the names of all units, the service first: `systemctl stop` stops them in this order, and once
    the sockets are gone `taskctl drain` cannot reach the daemon; systemd lets no client start a
    service again whose sockets are to be stopped as well. ``systemctl``: the words that a systemctl
    command begins with. ``enabled``: the links that `systemctl enable` makes.
    ``account``: the service's user, ``group``: whose members may submit, ``sysusers`` and
    ``tmpfiles``: the files that describe them to systemd; None or empty for a user's own.
    ``kept``: directories that outlive an uninstallation, the state directory first. ``marked``:
    those of them that bear a mark once they are ours. ``overrides``: directories of the
    administrator's own changes to the units. ``rivals``: paths at which another program may have
    a unit or the like of the same name. ``config``: the configuration file; ``shelf``: its
    directory, if no other installation uses it, else empty. ``runtime``: the sockets' directory.
    """

    ours: dict[str, str]
    yours: dict[str, str]
    links: dict[str, str]
    shared: frozenset[str]
    unit_files: tuple[str, ...]
    service: str
    units: tuple[str, ...]
    systemctl: tuple[str, ...]
    enabled: tuple[str, ...]
    account: str | None
    group: str | None
    sysusers: str
    tmpfiles: str
    kept: tuple[str, ...]
    marked: tuple[str, ...]
    overrides: tuple[str, ...]
    rivals: tuple[str, ...]
    config: str
    shelf: str
    runtime: str


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


def of_system(app: str | None, launchers: str) -> Installation:
    """The system's taskd, or the one of ``app``; ``launchers``: directory of the commands.

    Raises UsageError if ``app`` cannot be a name.
    """
    if app is not None:
        _check_name(app)
    account = f"taskd-{app}" if app else "taskd"
    at = "@" if app else ""
    files = [f"taskd{at}.service", f"taskd-control{at}.socket", f"taskd-submit{at}.socket"]
    unit_files = {f"{UNITS}/{name}": text_of(name) for name in files}
    units = [name.replace("@", f"@{app}") for name in files]
    sysusers, tmpfiles = f"{SYSUSERS}/{account}.conf", f"/etc/tmpfiles.d/{account}.conf"
    accounts = {
        sysusers: _renamed(account, text_of("taskd.sysusers")),
        tmpfiles: _renamed(account, text_of("taskd.tmpfiles")),
    }
    config = f"{CONFIG}/{app or 'taskd'}.toml"
    sample = text_of("taskd.toml").replace('"taskd', f'"{account}')
    links = {f"/usr/local/bin/{name}": f"{launchers}/{name}" for name in COMMANDS}
    script = {f"/usr/local/lib/taskd/{STOP_POST}": text_of(STOP_POST)}
    wanted_by = ["multi-user", *["sockets"] * (len(units) - 1)]
    return Installation(
        ours=unit_files | script | accounts,
        yours={config: sample.replace("/srv/app/", f"/srv/{app or 'app'}/")},
        links={path: target for path, target in links.items() if path != target},
        shared=frozenset([*links, *script, *(unit_files if app else ())]),
        unit_files=tuple(unit_files),
        service=units[0],
        units=tuple(units),
        systemctl=("systemctl",),
        enabled=tuple(
            f"{UNITS}/{target}.target.wants/{unit}"
            for target, unit in zip(wanted_by, units, strict=True)
        ),
        account=account,
        group=f"{account}-submit",
        sysusers=sysusers,
        tmpfiles=tmpfiles,
        kept=(f"/var/lib/{account}", f"/var/log/{account}", f"/run/{account}"),
        marked=(f"/var/lib/{account}", f"/var/log/{account}"),
        overrides=tuple(f"{UNITS}/{unit}.d" for unit in units),
        rivals=_rivals(units[0], files[0], account),
        config=config,
        shelf="" if app else CONFIG,
        runtime=f"/run/{account}",
    )


def of_user(environ: Mapping[str, str], uid: int, launchers: str) -> Installation:
    """A user's own taskd. Raises ConfigError if the user has no home directory."""
    places = paths.places(environ, uid)
    home = paths.home(environ, uid)
    above = paths.config_home(environ, uid)
    units = f"{above}/systemd/user"
    config = f"{above}/taskd/taskd.toml"
    sample = text_of("taskd.toml").split("[access]", 1)[0].rstrip() + "\n"  # its last section
    are_logs_in_state = places.logs.startswith(f"{places.state}/")
    return Installation(
        ours={
            f"{units}/taskd.service": text_of("user/taskd.service"),
            f"{home}/.local/lib/taskd/{STOP_POST}": text_of(STOP_POST),
        },
        yours={config: sample.replace("/srv/app", f"{home}/app")},
        links={f"{home}/.local/bin/{name}": f"{launchers}/{name}" for name in COMMANDS},
        shared=frozenset(),
        unit_files=(f"{units}/taskd.service",),
        service="taskd.service",
        units=("taskd.service",),
        systemctl=("systemctl", "--user"),
        enabled=(f"{units}/default.target.wants/taskd.service",),
        account=None,
        group=None,
        sysusers="",
        tmpfiles="",
        kept=tuple(dict.fromkeys((places.state, places.logs, places.runtime))),
        marked=(places.state,) if are_logs_in_state else (places.state, places.logs),
        overrides=(f"{units}/taskd.service.d",),
        rivals=tuple(
            f"{folder}/systemd/user/taskd.service" for folder in ("/etc", "/run", "/usr/lib")
        ),
        config=config,
        shelf=f"{above}/taskd",
        runtime=places.runtime,
    )


def _rivals(service: str, file: str, account: str) -> tuple[str, ...]:
    """``service``: the unit's name; ``file``: the name of its file, which may be a template."""
    found = [
        f"{folder}/{name}" for folder in _OTHER_UNITS for name in dict.fromkeys((service, file))
    ]
    found += [f"/usr/lib/{kind}.d/{account}.conf" for kind in ("sysusers", "tmpfiles")]
    if service != file:  # a unit goes before its template
        return (f"{UNITS}/{service}", *found)
    return (*found, f"/etc/init.d/{service.removesuffix('.service')}")


def text_of(name: str) -> str:
    """A file of the folder systemd/."""
    with open(os.path.join(paths.UNITS, name), encoding="utf-8") as file:
        return file.read()


def _check_name(app: str) -> None:
    if not _NAME.fullmatch(app) or app.endswith("-"):
        raise UsageError(
            f"--name {app!r}: expected a short name of small letters, digits and hyphens, such as "
            "shop (at most 18 characters, a letter first)"
        )
    if app == "taskd" or app.endswith("submit"):  # taskd.toml, and the group taskd-submit
        raise UsageError(f"--name {app!r}: this name is taken by taskd itself, choose another")


def _renamed(account: str, text: str) -> str:
    """``text`` with ``account`` where it names `taskd`; `taskd install` and the like stay."""
    return re.sub(r"(?<=[ /])taskd(?=[ /-]|\.conf|$)(?! install)", account, text, flags=re.M)
