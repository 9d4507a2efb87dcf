"""``taskd install`` and ``taskd uninstall``: put the units in place, and take them away.

Runs in the command line. ``install_plan`` decides and ``install_apply`` looks and does; this is the
command line around them, and what it tells the user to do next. ``install_apply`` is imported only
when it is used: `taskd run` reads this file too, and clients may be waiting for it.
"""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace

import taskd
from taskd import config
from taskd.cli.install import foreign, plan
from taskd.cli.install import installation as sites
from taskd.cli.install.found import Found
from taskd.cli.install.installation import Site
from taskd.cli.install.plan import Change
from taskd.cli.outcome import DONE, UsageError
from taskd.errors import ConfigError, Error
from taskd.paths import MORE

_HIDDEN = ("/home/", "/root/", "/run/user/", "/tmp/", "/var/tmp/")
"""What the system's unit hides from the service, or what is cleared at a boot."""

_ADVICE = (
    "give taskd a place of its own: `python3 -m venv /opt/taskd && /opt/taskd/bin/pip install PATH "
    "&& /opt/taskd/bin/taskd install`, where PATH is a checkout or a wheel of taskd-supervisor"
)

_DONE = {"create": "created", "update": "updated", "keep": "kept", "remove": "removed",
         "run": "ran"}  # fmt: skip


def add_install(verb: ArgumentParser) -> None:
    verb.description = (
        "Writes the systemd units, the service's user, its directories and a commented taskd.toml, "
        "and says what it did and what comes next. Run again, it changes only what is out of date, "
        "and never a taskd.toml or a drop-in. Starts nothing."
    )
    _add_which(verb)
    verb.set_defaults(verb_runs=_install)


def add_uninstall(verb: ArgumentParser) -> None:
    verb.description = (
        "Takes away what `taskd install` wrote. Tasks, logs and taskd.toml stay, for another "
        "installation to go on with, unless you say --purge."
    )
    _add_which(verb)
    verb.add_argument("--stop", action="store_true", help="stop the service first, if it runs")
    verb.add_argument(
        "--purge",
        action="store_true",
        help="remove the tasks, logs, taskd.toml, drop-ins and the service's user as well",
    )
    verb.set_defaults(verb_runs=_uninstall)


def _add_which(verb: ArgumentParser) -> None:
    which = verb.add_mutually_exclusive_group()
    which.add_argument("--user", action="store_true", help="one of your own, not the system's")
    which.add_argument(
        "--name", metavar="APP", help="one of several on this machine: taskd@APP.service"
    )
    verb.add_argument("--dry-run", action="store_true", help="say what would be done; do nothing")


def _install(args: Namespace) -> int:
    from taskd.cli.install import machine

    site = _site(args)
    _check_there(_launchers())
    _check_distribution(os.path.dirname(os.path.dirname(taskd.__file__)))
    if not args.user:
        _check_reachable(_launchers())
    _check_outside(_launchers(), site.config)
    _check_rights(args)
    found = machine.look(site)
    changes = plan.install(site, found)
    _carry_out(changes, args.dry_run)
    if all(change.verb == "keep" for change in changes):
        print(f"nothing to change: {site.service} is installed as it should be")
    if not args.dry_run:
        _say_next(site, found)
    return DONE


def _uninstall(args: Namespace) -> int:
    from taskd.cli.install import machine

    site = _site(args)
    _check_rights(args)
    found = machine.look(site)
    if foreign.has_unit_of(site, found):
        found = found._replace(is_running=False)  # what runs by this name is somebody else's
    if found.is_running and not args.stop:
        raise Error(
            f"{site.service} is running, and with it your tasks: stop it first with "
            f"`{' '.join(site.systemctl)} stop {' '.join(site.units)}`, or say --stop (either asks "
            "the tasks to leave at a safe point; what is saved stays, unless you say --purge)"
        )
    stop = (*site.systemctl, "stop", *site.units)
    first = [Change("run", words=stop)] if found.is_running else []
    changes = [*first, *plan.uninstall(site, found, args.purge)]
    _carry_out(changes, args.dry_run)
    _say_what_is_left(site, args, bool(changes))
    return DONE


def _say_what_is_left(site: Site, args: Namespace, any_changes: bool) -> None:
    from taskd.cli.install import machine

    left = plan.left(site, machine.look(site), args.purge and not args.dry_run)
    if left and args.purge:
        why = f"since not all in it may be taskd's (what is bears the mark {foreign.MARK})"
        print(f"left, {why}: {', '.join(left)}")
    elif left:
        print(f"left, for another installation (--purge removes it): {', '.join(left)}")
    elif not any_changes:
        print(f"nothing to remove: {site.service} is not installed")


def _site(args: Namespace) -> Site:
    if args.user:
        if os.getuid() == 0 and "SUDO_USER" in os.environ:
            raise UsageError("--user installs for the user who runs it: leave sudo out")
        return sites.of_user(os.environ, os.getuid(), _launchers())
    return sites.of_system(args.name, _launchers())


def _launchers() -> str:
    """The directory of the commands that belong to this Python; the units start what is there."""
    return os.path.dirname(os.path.abspath(sys.executable))


def _check_rights(args: Namespace) -> None:
    if not args.user and not args.dry_run and os.getuid() != 0:
        raise Error("only root may do this (sudo); --user is for a taskd of your own")


def _check_there(launchers: str) -> None:
    for name in sites.COMMANDS:
        if not os.path.isfile(f"{launchers}/{name}"):
            raise Error(f"there is no command {name} in {launchers}: {_ADVICE}")


def _check_distribution(library: str) -> None:
    """The distribution `taskd` (ours until 0.1, a stranger's on PyPI) has files of the same names:
    whichever of the two is uninstalled or upgraded takes the other's along."""
    others = [
        name
        for name in sorted(os.listdir(library))
        if name.startswith("taskd-") and name.endswith((".dist-info", ".egg-info"))
    ]
    if others:
        pip = f"{sys.executable} -m pip"
        raise Error(
            f"the distribution `taskd` ({others[0]}) is installed in {library} as well, with files "
            f"of the same names: `{pip} uninstall taskd`, and then `{pip} install "
            "--force-reinstall --no-deps` with the checkout or wheel of taskd-supervisor"
        )


def _check_reachable(launchers: str) -> None:
    """The service's user, in its sandbox, must be able to start taskd, today and after a boot."""
    if f"{launchers}/".startswith(_HIDDEN):
        raise Error(f"this taskd is in {launchers}, which the service cannot see: {_ADVICE}")
    above = launchers
    while above != "/":
        if not os.stat(above).st_mode & 0o001:
            raise Error(f"{above} is closed to the service's user (no mode o+x): {_ADVICE}")
        above = os.path.dirname(above)


def _check_outside(launchers: str, config_file: str) -> None:
    """A release comes and goes; what starts the daemon must not go with it."""
    try:
        release = os.path.realpath(config.load(config_file).app.release)
    except ConfigError:
        return  # none yet, or one that the daemon will complain about
    if os.path.realpath(launchers).startswith(f"{release}/"):
        raise Error(
            f"this taskd is in the release {release}, which the next deploy leaves behind: run "
            "`taskd install` from a Python outside the releases, such as /opt/taskd"
        )


def _carry_out(changes: list[Change], is_dry: bool) -> None:
    from taskd.cli.install import machine

    for change in changes:
        if not is_dry:
            machine.make(change)
        verb = f"would {change.verb}" if is_dry and change.verb != "keep" else _DONE[change.verb]
        what = " ".join(change.words) or change.path
        print(f"{verb:<8} {what}" + (f" ({change.note})" if change.note else ""))


def _say_next(site: Site, found: Found) -> None:
    systemctl = " ".join(site.systemctl)
    socket = "" if site.service == "taskd.service" else f" --socket {site.runtime}"
    print("\nNext:")
    if found.is_running:
        print(f"  it runs; `{systemctl} restart {site.service}` takes up a unit that has changed")
        return
    if not _is_configured(site.config):
        print(f"  say in {site.config} what to run: [app] release and modules")
    print(f"  {systemctl} enable --now {site.service}")
    if site.group:
        print(
            f"  usermod -aG {site.group} USER      # who may submit tasks, from the next login on"
        )
        print(f"  what tasks may not do in the unit's sandbox, and how to let them: {MORE}")
    else:
        print("  loginctl enable-linger              # to go on when you log out")
    print(f"  taskctl{socket} status")


def _is_configured(path: str) -> bool:
    try:
        return os.path.exists(config.load(path).app.release)
    except ConfigError:
        return False
