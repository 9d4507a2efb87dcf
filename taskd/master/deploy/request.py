"""The options of a deploy request, the release that it names, and what is read for it."""

from __future__ import annotations

from taskd import config
from taskd.errors import ConfigError, DeployRefused
from taskd.master.deploy.ages import shortened
from taskd.master.fleet import Revision, Revisions
from taskd.model.routing import is_older
from taskd.record import Record
from taskd.revision import environment, release


class How(Record):
    """``plan_only``: stop after the plan and change nothing. ``allow_held``: deploy even if the new
    revision cannot go on with all tasks. ``goes_back``: a rollback, perhaps in an emergency: a live
    revision becomes the current one even if its files have changed. ``settings``: the file of what
    the release was proved with then, if there is one (``revision.proved``)."""

    plan_only: bool = False
    allow_held: bool = False
    goes_back: bool = False
    settings: str = ""


PLAINLY = How()

KNOW_ALL = "0.3"
"""Versions of taskd before this one refuse a file with one of ``config.new_keys``."""


class Wanted(Record):
    """What is to be deployed: ``settings`` as read, with the environment; ``path``: the release's
    real path."""

    settings: config.Config
    path: str
    warnings: list[str]


def resolve(running: config.Config, revisions: Revisions, wanted: str | None, how: How) -> Wanted:
    """Read the configuration and the environment that it names, for the release ``wanted``, or the
    one that ``[app] release`` points to. ``running``: the configuration that the daemon has.

    A release that is gone back to has what it was proved with, whatever the files say now: they may
    be why one goes back. Raises ConfigError, DeployRefused."""
    kept, warnings = None, []
    try:
        if how.settings:
            try:
                kept = revisions.kept(how.settings)
            except ConfigError as error:
                warnings.append(f"{error}: taskd.toml and the environment are read as they are now")
        try:
            settings = config.load(running.source)
        except ConfigError as error:
            if kept is None:
                raise
            settings = running
            warnings.append(f"{error}: the daemon goes on with the configuration that it has")
        path = release.resolve(wanted or settings.app.release)
        if kept is not None:
            app = settings.app.with_proved(kept)
        else:
            app, found = environment.resolve(settings.app, path)
            warnings += found
        release.interpreter(path, app.python)
    except (OSError, ValueError) as error:  # EMFILE, for example, or a path with a NUL
        raise DeployRefused(f"cannot look at the release: {error}") from error
    return Wanted(settings._replace(app=app), path, warnings + shortened(running, settings))


def unknown_keys(settings: config.Config, target: Revision) -> list[str]:
    """A warning, if the taskd of ``target`` refuses keys that taskd.toml has."""
    keys = config.new_keys(settings.table)
    if not keys or not is_older(target.taskd, KNOW_ALL):
        return []
    return [
        f"{target.name} brings taskd {target.taskd}, which does not know {', '.join(keys)} and "
        f"cannot be the daemon with a file that has them: take them out of {settings.source} first"
    ]


def changed(path: str, what: str) -> DeployRefused:
    """The files of the release at ``path`` are not what was proved; ``what``: happened to them."""
    return DeployRefused(
        f"the files of {path} {what} while it was being deployed. A release must be whole before "
        "it is deployed, and stay as it is: build it elsewhere and move it there"
    )
