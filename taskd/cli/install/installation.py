"""What an installation consists of: which files, links, accounts and directories, and where.

Runs in ``taskd install`` and ``taskd uninstall``; touches nothing. The texts are those of the
folder systemd/ (package data here), which is their only source. There are three kinds of place:
the system's one taskd, one of several apps on a machine (``--name``), and a user's own
(``--user``). For an app, every name ``taskd`` in accounts and directories becomes ``taskd-NAME``;
its units are instances of templates, which all apps share.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from taskd import paths
from taskd.cli.outcome import UsageError
from taskd.record import Record

COMMANDS = ("taskd", "taskctl")

UNITS = "/etc/systemd/system"
SYSUSERS = "/etc/sysusers.d"
TMPFILES = "/etc/tmpfiles.d"
CONFIG = "/etc/taskd"
BIN = "/usr/local/bin"
LIB = "/usr/local/lib/taskd"
STOP_POST = "stop-post"
"""The script that the units run after each end of the daemon."""

_OTHER_UNITS = tuple(
    f"{above}/systemd/system" for above in ("/run", "/usr/local/lib", "/usr/lib", "/lib")
)
_OTHER_USER_UNITS = tuple(f"{above}/systemd/user" for above in ("/etc", "/run", "/usr/lib"))

_NAME = re.compile(r"[a-z][a-z0-9-]{0,17}")
"""As long as `taskd-NAME-submit` may be for a group: 31 characters."""


class Site(Record):
    """One installation.

    ``ours``: path to text of the files that are written anew when they differ; ``yours``: of those
    that are written once and never again. ``links``: path to target. ``shared``: those of ``ours``
    and ``links`` that other installations on the machine use too. ``service``, ``sockets``: names
    of units. ``account``: the user of the service, ``group``: of those who may submit; None for a
    user's own. ``kept``: directories with what is to outlive an uninstallation, the state first;
    ``marked``: those of them that bear a mark once they are ours. ``overrides``: directories of the
    administrator's own changes to the units. ``rivals``: where a unit or the like of the same name
    is somebody else's. ``shelf``: the directory of ``config``, if no other installation uses it.
    """

    ours: dict[str, str]
    yours: dict[str, str]
    links: dict[str, str]
    shared: frozenset[str]
    service: str
    sockets: tuple[str, ...]
    account: str | None
    group: str | None
    kept: tuple[str, ...]
    marked: tuple[str, ...]
    overrides: tuple[str, ...]
    rivals: tuple[str, ...]
    shelf: str
    config: str
    runtime: str

    @property
    def units(self) -> tuple[str, ...]:
        """The service first: `systemctl stop` stops them in this order, and once its sockets are
        gone nobody can tell the daemon that it is a stop. systemd lets no client start a service
        again whose sockets are to be stopped as well."""
        return (self.service, *self.sockets)

    @property
    def enabled(self) -> tuple[str, ...]:
        """The links that `systemctl enable` makes."""
        if self.account is None:
            return (
                f"{os.path.dirname(next(iter(self.ours)))}/default.target.wants/{self.service}",
            )
        service = f"{UNITS}/multi-user.target.wants/{self.service}"
        return (service, *(f"{UNITS}/sockets.target.wants/{name}" for name in self.sockets))

    @property
    def paths(self) -> tuple[str, ...]:
        """Every path that matters."""
        theirs = (*self.kept, *self.overrides, *self.enabled, *self.rivals)
        return (*self.ours, *self.yours, *self.links, *theirs)

    @property
    def directories(self) -> tuple[str, ...]:
        """Those in which it matters what they hold."""
        return (*self.kept, *([self.shelf] if self.shelf else []))

    @property
    def unit_files(self) -> tuple[str, ...]:
        return tuple(path for path in self.ours if path.endswith((".service", ".socket")))

    @property
    def sysusers(self) -> str:
        """The file that names the accounts; only where ``account`` is set."""
        return f"{SYSUSERS}/{self.account}.conf"

    @property
    def tmpfiles(self) -> str:
        return f"{TMPFILES}/{self.account}.conf"

    @property
    def systemctl(self) -> tuple[str, ...]:
        """The words to begin a systemctl command with."""
        return ("systemctl",) if self.account else ("systemctl", "--user")


def of_system(app: str | None, launchers: str) -> Site:
    """The system's taskd, or the one of ``app``; ``launchers``: directory of the commands.

    Raises UsageError for a name that cannot be one.
    """
    at = ""
    if app is not None:
        _check_name(app)
        at = "@"
    account = f"taskd-{app}" if app else "taskd"
    units = [f"taskd{at}.service", f"taskd-control{at}.socket", f"taskd-submit{at}.socket"]
    unit_files = {f"{UNITS}/{name}": text_of(name) for name in units}
    accounts = {
        f"{SYSUSERS}/{account}.conf": _for(account, text_of("taskd.sysusers")),
        f"{TMPFILES}/{account}.conf": _for(account, text_of("taskd.tmpfiles")),
    }
    config = f"{CONFIG}/{app or 'taskd'}.toml"
    names = [name.replace("@", f"@{app}") for name in units]
    links = {f"{BIN}/{name}": f"{launchers}/{name}" for name in COMMANDS}
    script = {f"{LIB}/{STOP_POST}": text_of(STOP_POST)}
    return Site(
        ours=unit_files | script | accounts,
        yours={config: _config(account, app)},
        links={path: target for path, target in links.items() if path != target},
        shared=frozenset([*links, *script, *(unit_files if app else ())]),
        service=names[0],
        sockets=tuple(names[1:]),
        account=account,
        group=f"{account}-submit",
        kept=(f"/var/lib/{account}", f"/var/log/{account}", f"/run/{account}"),
        marked=(f"/var/lib/{account}", f"/var/log/{account}"),
        overrides=tuple(f"{UNITS}/{name}.d" for name in names),
        rivals=_rivals(names[0], units[0], account),
        shelf="" if app else CONFIG,
        config=config,
        runtime=f"/run/{account}",
    )


def of_user(environ: Mapping[str, str], uid: int, launchers: str) -> Site:
    """A user's own taskd. Raises ConfigError if there is no home."""
    places = paths.places(environ, uid)
    home = paths.home(environ, uid)
    above = paths.config_home(environ, uid)
    is_within = places.logs.startswith(f"{places.state}/")
    config = f"{above}/taskd/taskd.toml"
    sample = text_of("taskd.toml").split("[access]", 1)[0].rstrip() + "\n"  # its last section
    return Site(
        ours={
            f"{above}/systemd/user/taskd.service": text_of("user/taskd.service"),
            f"{home}/.local/lib/taskd/{STOP_POST}": text_of(STOP_POST),
        },
        yours={config: sample.replace("/srv/app", f"{home}/app")},
        links={f"{home}/.local/bin/{name}": f"{launchers}/{name}" for name in COMMANDS},
        shared=frozenset(),
        service="taskd.service",
        sockets=(),
        account=None,
        group=None,
        kept=tuple(dict.fromkeys((places.state, places.logs, places.runtime))),
        marked=(places.state,) if is_within else (places.state, places.logs),
        overrides=(f"{above}/systemd/user/taskd.service.d",),
        rivals=tuple(f"{folder}/taskd.service" for folder in _OTHER_USER_UNITS),
        shelf=f"{above}/taskd",
        config=config,
        runtime=places.runtime,
    )


def _rivals(service: str, file: str, account: str) -> tuple[str, ...]:
    """``service``: the unit's name; ``file``: of its file, which may be a template's."""
    names = dict.fromkeys((service, file))
    found = [f"{folder}/{name}" for folder in _OTHER_UNITS for name in names]
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


def _for(account: str, text: str) -> str:
    """``text`` with the names of another account; `taskd install` and the like stay."""
    return re.sub(r"(?<=[ /])taskd(?=[ /-]|\.conf|$)(?! install)", account, text, flags=re.M)


def _config(account: str, app: str | None) -> str:
    text = text_of("taskd.toml").replace('"taskd', f'"{account}')
    return text.replace("/srv/app/", f"/srv/{app}/") if app else text
