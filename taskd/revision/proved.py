"""What a release was proved with, kept for later starts and rollbacks: ``[app]``, environment.

The directory ``proved`` in the state directory has a file for each such settings, named by a hash
of them: one JSON object {"release": path, "app": {…}}: of ``config.App`` what ``App.proved``
leaves. Mode 0600, since values may be secrets. Unknown fields are ignored, and one that is missing
is as in a file that leaves it out.

``confirmed`` names the file of its release and that of the release before; so the file is written,
synced and in place first. A file that ``confirmed`` does not name is of a deploy that was refused,
or is long over: the next write removes it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection

from taskd.config import App
from taskd.errors import ConfigError
from taskd.posix import files
from taskd.record import Record


class Proved(Record):
    """The content of a file, and the name that it has; see the module."""

    name: str
    raw: bytes


def of(release: str, app: App) -> Proved:
    """What the release at that path was proved with."""
    import hashlib  # both are slow to import, and never needed in a new image before it serves
    import json

    told = {"release": release, "app": app.proved()._asdict()}
    raw = json.dumps(told, sort_keys=True).encode()
    return Proved(hashlib.blake2b(raw, digest_size=8).hexdigest(), raw)


def write(directory: str, proved: Proved, keep: Collection[str]) -> None:
    """Put the file in place, durably, unless it is there; remove the others that are not in
    ``keep``. Raises OSError."""
    if not os.path.isdir(directory):
        files.make_own_directory(directory)
        files.sync_directory(os.path.dirname(directory))
    path = os.path.join(directory, proved.name)
    if _content(path) != proved.raw:
        files.write_atomically(path, proved.raw)
    for name in set(os.listdir(directory)).difference(keep, [proved.name]):
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(directory, name))


def read(directory: str, name: str) -> App:
    """The settings in the file of that name. Raises ConfigError."""
    import json

    path = os.path.join(directory, os.path.basename(name))
    try:
        found = json.loads(files.read_own(path))["app"]
        return App(**{field: found[field] for field in App._fields if field in found})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"cannot read {path}, which has what the release was proved with: {error}"
        ) from error


def _content(path: str) -> bytes | None:
    try:
        return files.read_own(path)
    except OSError:
        return None
