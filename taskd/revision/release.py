"""A release's real path, its Python and its name. A release is an immutable directory.

The name is the shortest end of the path that tells it from the others: usually its directory's base
name. If another release's directory has the same (as with ``releases/41/app`` and
``releases/42/app``), the directories above it are part of the name: ``42/app``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping

from taskd.errors import DeployRefused
from taskd.posix import spawn


def resolve(path: str) -> str:
    """The real path of the release at ``path`` (a symlink, usually). Raises DeployRefused."""
    real = os.path.realpath(path)
    if not os.path.isdir(real):
        shown = path if real == path else f"{path} (which points to {real})"
        raise DeployRefused(f"there is no release directory at {shown}")
    try:
        real.encode()
    except UnicodeEncodeError:
        raise DeployRefused(
            f"the release's path {real!r} is not valid UTF-8: rename the directory"
        ) from None
    return real


def interpreter(release: str, configured: str | None) -> str:
    """The Python to run the release with. Raises DeployRefused if the configured one is missing.

    ``configured`` is ``[app] python``: absolute, or relative to the release. Without it, the
    release's own ``.venv/bin/python`` if there is one, else the one of `taskd run`.
    """
    if configured is None:
        own = os.path.join(release, ".venv/bin/python")
        return settled(own) if _is_program(own) else launcher()
    path = os.path.join(release, configured)
    if not _is_program(path):
        raise DeployRefused(
            f"[app] python = {configured!r}: {path} is not there or may not be executed"
        )
    return settled(path)


def settled(program: str) -> str:
    """``program`` by its directory's real path: a symlink in the path may be switched to another
    release. The last name stays as it is: a virtual environment's Python is a symlink."""
    directory, name = os.path.split(program)
    return os.path.join(os.path.realpath(directory), name)


def launcher() -> str:
    """The Python that `taskd run` was started with; the daemon may run another by now.

    So a release without a Python of its own has the same one after a deploy, a rollback and a
    restart.
    """
    return settled(os.environ.get(spawn.LAUNCHER, sys.executable))


DEFAULT_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
"""At the end of every PATH, where it does not have them."""


def environment(python: str, variables: Mapping[str, str] | None) -> dict[str, str]:
    """The environment of a process of the app's: this process's own, without what is for the daemon
    alone; above it the revision's ``variables``. PATH begins with the virtual environment of the
    release's ``python``, and ends with DEFAULT_PATH."""
    found = spawn.environment(variables)
    directory = os.path.dirname(python)
    is_virtual = os.path.exists(os.path.join(os.path.dirname(directory), "pyvenv.cfg"))
    path = [directory] * is_virtual + found.get("PATH", "").split(os.pathsep)
    found["PATH"] = os.pathsep.join(dict.fromkeys(filter(None, (*path, *DEFAULT_PATH))))
    return found


def _is_program(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)


def name(path: str, others: Iterable[str]) -> str:
    """The name of the release at ``path`` beside the releases at ``others``; all are real paths."""
    parts = _parts(path)
    found = [_parts(other) for other in others if other != path]
    size = 1
    while size < len(parts) and any(each[-size:] == parts[-size:] for each in found):
        size += 1
    return "/".join(parts[-size:])


def is_meant(path: str, word: str) -> bool:
    """Whether ``word``, which an operator gave, fits the release at ``path``: the path or an end
    of it, in whole names."""
    wanted = _parts(word)
    return bool(wanted) and _parts(path)[-len(wanted) :] == wanted


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part]
