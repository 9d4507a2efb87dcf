"""The options of a deploy request, and the release that it names."""

from __future__ import annotations

from taskd import config
from taskd.errors import DeployRefused
from taskd.record import Record
from taskd.revision import environment, release


class How(Record):
    """``plan_only``: stop after the plan and change nothing. ``allow_held``: deploy even if the new
    revision cannot go on with all tasks. ``goes_back``: a rollback, perhaps in an emergency: a live
    revision becomes the current one even if its files have changed."""

    plan_only: bool = False
    allow_held: bool = False
    goes_back: bool = False


PLAINLY = How()


class Wanted(Record):
    """What is to be deployed: ``settings`` as read, with the environment; ``path``: the release's
    real path."""

    settings: config.Config
    path: str
    warnings: list[str]


def resolve(source: str, wanted: str | None) -> Wanted:
    """Read the configuration file ``source`` and the environment that it names, for the release
    ``wanted``, or the one that ``[app] release`` points to. Raises ConfigError, DeployRefused."""
    try:
        settings = config.load(source)
        path = release.resolve(wanted or settings.app.release)
        release.interpreter(path, settings.app.python)
        app, warnings = environment.resolve(settings.app, path)
    except (OSError, ValueError) as error:  # EMFILE, for example, or a path with a NUL
        raise DeployRefused(f"cannot look at the release: {error}") from error
    return Wanted(settings._replace(app=app), path, warnings)
