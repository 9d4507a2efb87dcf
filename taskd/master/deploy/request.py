"""The options of a deploy request, and the release that it names."""

from __future__ import annotations

from taskd import config
from taskd.errors import DeployRefused
from taskd.record import Record
from taskd.revision import release


class How(Record):
    """``plan_only``: stop after the plan and change nothing. ``allow_held``: deploy even if the new
    revision cannot go on with all tasks. ``goes_back``: a rollback, perhaps in an emergency: a live
    revision becomes the current one even if its files have changed."""

    plan_only: bool = False
    allow_held: bool = False
    goes_back: bool = False


PLAINLY = How()


def resolve(source: str, wanted: str | None) -> tuple[config.Config, str]:
    """Read the configuration file ``source``. Returns it and the real path of the release to
    deploy: ``wanted``, or what ``[app] release`` points to. Raises ConfigError, DeployRefused."""
    try:
        settings = config.load(source)
        path = release.resolve(wanted or settings.app.release)
        release.interpreter(path, settings.app.python)
    except (OSError, ValueError) as error:  # EMFILE, for example, or a path with a NUL
        raise DeployRefused(f"cannot look at the release: {error}") from error
    return settings, path
