"""The environment of a release's processes: read at a deploy, kept with the revision.

What a deploy reads is ``[app] env_file`` and, above it, ``[app] env``: the variables of a revision.
They are added to what the daemon itself was started with (without what is the daemon's alone),
which a deploy does not change; see ``release.environment``. Values are never told: names alone.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping

from taskd.config import App
from taskd.errors import ConfigError

_MOST = 1024 * 1024
"""Bytes that an environment file has at most: the kernel passes on little more to a program."""

NAMED = 100
"""Variables that a list of names has at most."""


def resolve(app: App, release: str) -> tuple[App, list[str]]:
    """``app`` with its ``environment`` for the release at that path, read anew; and warnings.
    Raises ConfigError."""
    found, warnings = {}, []
    if app.env_file is not None:
        path = os.path.join(release, app.env_file)
        from taskd.revision import env_file  # only here: no new master needs it

        text, mode = _read(path)
        found = env_file.parse(text, path)
        if mode & (stat.S_IROTH | stat.S_IWOTH):
            may = "write to" if mode & stat.S_IWOTH else "read"
            warnings = [f"[app] env_file: anybody here may {may} {path}: chmod o= {path}"]
    found |= app.env or {}
    return app._replace(environment=found or None), warnings


def _read(path: str) -> tuple[str, int]:
    """The file's text and mode. Raises ConfigError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe would wait
        with open(fd, "rb") as file:
            mode = os.fstat(fd).st_mode
            if not stat.S_ISREG(mode):
                raise ConfigError(f"[app] env_file: {path} is not a file")
            raw = file.read(_MOST + 1)
    except OSError as error:
        raise ConfigError(
            f"[app] env_file: cannot read {path} as user {os.getuid()}: {error.strerror}"
        ) from error
    if len(raw) > _MOST:
        raise ConfigError(f"[app] env_file: {path} has more than {_MOST} bytes")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}: line {line}: it is not UTF-8") from None
    for sign, what in (("\0", "a NUL byte"), ("\ufeff", "a byte order mark")):
        if sign in text[: 1 if sign == "\ufeff" else None]:
            line = text.count("\n", 0, text.index(sign)) + 1
            raise ConfigError(f"{path}: line {line}: it has {what}: save it as plain text")
    return text, mode


def changes(before: App | None, after: App) -> dict[str, list[str]]:
    """The names of the variables that differ between two revisions: ``new``, ``changed`` and
    ``gone``, the first NAMED of each; empty lists are left out."""
    was: Mapping[str, str] = (before and before.environment) or {}
    now: Mapping[str, str] = after.environment or {}
    found = {
        "new": now.keys() - was.keys(),
        "changed": {name for name in now.keys() & was.keys() if now[name] != was[name]},
        "gone": was.keys() - now.keys(),
    }
    return {what: sorted(names)[:NAMED] for what, names in found.items() if names}
