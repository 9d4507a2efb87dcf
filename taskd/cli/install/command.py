"""``taskd install`` and ``taskd uninstall``: put the units in place, and take them away.

Runs in the command line. ``plan`` decides, ``machine`` looks and changes; this module has the
options and the checks of the user and of this Python, and says what the user does next.
"""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace

import taskd
from taskd import config
from taskd.cli.install import foreign, installation, machine, plan
from taskd.cli.install.installation import Found, Installation
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

_LAUNCHERS = os.path.dirname(os.path.abspath(sys.executable))
"""The directory of the commands that belong to this Python; the units start what is there."""

_DONE = {"create": "created", "update": "updated", "keep": "kept", "remove": "removed",
         "run": "ran"}  # fmt: skip


def add_install(parser: ArgumentParser) -> None:
    """``install [--user | --name APP] [--dry-run]``"""
    parser.description = (
        "Writes the systemd units, the service's user, its directories and a commented taskd.toml, "
        "and says what it did and what comes next. Run again, it changes only what is out of date, "
        "and never a taskd.toml or a drop-in. Starts nothing."
    )
    _add_which(parser)


def add_uninstall(parser: ArgumentParser) -> None:
    """``uninstall [--user | --name APP] [--dry-run] [--stop] [--purge]``"""
    parser.description = (
        "Takes away what `taskd install` wrote. Tasks, logs and taskd.toml stay, for another "
        "installation to go on with, unless you say --purge."
    )
    _add_which(parser)
    parser.add_argument("--stop", action="store_true", help="stop the service first, if it runs")
    parser.add_argument(
        "--purge",
        action="store_true",
        help="remove the tasks, logs, taskd.toml, drop-ins and the service's user as well",
    )


def _add_which(parser: ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--user", action="store_true", help="one of your own, not the system's")
    which.add_argument(
        "--name", metavar="APP", help="one of several on this machine: taskd@APP.service"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be done; do nothing")


def do_install(args: Namespace) -> int:
    """Raises UsageError, Error."""
    wanted = _wanted(args)
    _check_commands()
    if not args.user:
        _check_reachable()
    _check_outside(wanted.config)
    _check_rights(args)
    found = machine.look(wanted)
    changes = plan.install(wanted, found)
    _carry_out(changes, args.dry_run)
    if all(change.verb == "keep" for change in changes):
        print(f"nothing to change: {wanted.service} is installed as it should be")
    if not args.dry_run:
        _say_next(wanted, found)
    return DONE


def do_uninstall(args: Namespace) -> int:
    """Raises UsageError, Error."""
    wanted = _wanted(args)
    _check_rights(args)
    found = machine.look(wanted)
    if foreign.has_unit_of(wanted, found):
        found = found._replace(is_running=False)  # the unit that runs is another program's
    if found.is_running and not args.stop:
        raise Error(
            f"{wanted.service} is running, and with it your tasks: stop it first with "
            f"`{' '.join(wanted.systemctl)} stop {' '.join(wanted.units)}`, or say --stop (either "
            "asks the tasks to leave at a safe point; what is saved stays, unless you say --purge)"
        )
    changes = [
        Change("run", words=(*wanted.systemctl, "stop", *wanted.units))
    ] * found.is_running + plan.uninstall(wanted, found, args.purge)
    _carry_out(changes, args.dry_run)
    left = plan.left(wanted, machine.look(wanted), args.purge and not args.dry_run)
    if left and args.purge:
        print(
            "left, since not all in it may be taskd's (what is bears the mark "
            f"{foreign.MARK}): {', '.join(left)}"
        )
    elif left:
        print(f"left, for another installation (--purge removes it): {', '.join(left)}")
    elif not changes:
        print(f"nothing to remove: {wanted.service} is not installed")
    return DONE


def _wanted(args: Namespace) -> Installation:
    if not args.user:
        return installation.of_system(args.name, _LAUNCHERS)
    if os.getuid() == 0 and "SUDO_USER" in os.environ:
        raise UsageError("--user installs for the user who runs it: leave sudo out")
    return installation.of_user(os.environ, os.getuid(), _LAUNCHERS)


def _check_rights(args: Namespace) -> None:
    if not args.user and not args.dry_run and os.getuid() != 0:
        raise Error("only root may do this (sudo); --user is for a taskd of your own")


def _check_commands() -> None:
    """The commands are there, and belong to this distribution alone.

    The distribution `taskd` (a stranger's, on PyPI) has files of the same names: if
    one of the two is uninstalled or upgraded, files of the other are removed.
    """
    for name in installation.COMMANDS:
        if not os.path.isfile(f"{_LAUNCHERS}/{name}"):
            raise Error(f"there is no command {name} in {_LAUNCHERS}: {_ADVICE}")
    library = os.path.dirname(os.path.dirname(taskd.__file__))
    for name in sorted(os.listdir(library)):
        if name.startswith("taskd-") and name.endswith((".dist-info", ".egg-info")):
            pip = f"{sys.executable} -m pip"
            raise Error(
                f"the distribution `taskd` ({name}) is installed in {library} as well, with files "
                f"of the same names: `{pip} uninstall taskd`, and then `{pip} install "
                "--force-reinstall --no-deps` with the checkout or wheel of taskd-supervisor"
            )


def _check_reachable() -> None:
    """The service's user, in its sandbox, must be able to start taskd, today and after a boot."""
    if f"{_LAUNCHERS}/".startswith(_HIDDEN):
        raise Error(f"this taskd is in {_LAUNCHERS}, which the service cannot see: {_ADVICE}")
    above = _LAUNCHERS
    while above != "/":
        if not os.stat(above).st_mode & 0o001:
            raise Error(f"{above} is closed to the service's user (no mode o+x): {_ADVICE}")
        above = os.path.dirname(above)


def _check_outside(config_file: str) -> None:
    """A release comes and goes; what starts the daemon must not go with it."""
    try:
        release = os.path.realpath(config.load(config_file).app.release)
    except ConfigError:
        return  # none yet, or one that the daemon will complain about
    if os.path.realpath(_LAUNCHERS).startswith(f"{release}/"):
        raise Error(
            f"this taskd is in the release {release}, which the next deploy leaves behind: run "
            "`taskd install` from a Python outside the releases, such as /opt/taskd"
        )


def _carry_out(changes: list[Change], is_dry: bool) -> None:
    for change in changes:
        if not is_dry:
            machine.make(change)
        verb = f"would {change.verb}" if is_dry and change.verb != "keep" else _DONE[change.verb]
        what = " ".join(change.words) or change.path
        print(f"{verb:<8} {what}" + (f" ({change.note})" if change.note else ""))


def _say_next(wanted: Installation, found: Found) -> None:
    systemctl, service = " ".join(wanted.systemctl), wanted.service
    print("\nNext:")
    if found.is_running:
        print(f"  it runs; `{systemctl} restart {service}` takes up a unit that has changed")
        return
    try:
        is_configured = os.path.exists(config.load(wanted.config).app.release)
    except ConfigError:
        is_configured = False
    if not is_configured:
        print(f"  say in {wanted.config} what to run: [app] release and modules")
    print(f"  {systemctl} enable --now {service}")
    if wanted.group:
        print(
            f"  usermod -aG {wanted.group} USER      # who may submit tasks, from the next login on"
        )
        print(f"  what tasks may not do in the unit's sandbox, and how to let them: {MORE}")
    else:
        print("  loginctl enable-linger              # to go on when you log out")
    socket = "" if service == "taskd.service" else f" --socket {wanted.runtime}"
    print(f"  taskctl{socket} status")
