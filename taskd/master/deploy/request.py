"""What is asked of a deploy, and which release that means."""

from __future__ import annotations

from taskd import config
from taskd.errors import DeployRefused
from taskd.record import Record
from taskd.revision import release


class How(Record):
    """``plan_only``: stop at the plan and change nothing. ``allow_held``: go on although the new
    revision cannot take everything. ``goes_back``: a rollback, in an emergency perhaps: a revision
    that lives is promoted whatever has become of its files."""

    plan_only: bool = False
    allow_held: bool = False
    goes_back: bool = False


PLAINLY = How()


def resolve(source: str, wanted: str | None) -> tuple[config.Config, str]:
    """The configuration in the file ``source`` as it is now, and the real path of the release to
    deploy: ``wanted``, or what ``[app] release`` points to. Raises ConfigError, DeployRefused."""
    try:
        settings = config.load(source)
        path = release.resolve(wanted or settings.app.release)
        release.interpreter(path, settings.app.python)
    except (OSError, ValueError) as error:  # out of descriptors, say, or a path with a NUL
        raise DeployRefused(f"cannot look at the release: {error}") from error
    return settings, path
