"""The file ``handoff`` in the state directory: a deploy is between its exec and its decision.

Written just before the exec, removed as soon as the new image has confirmed or given back. A start
that finds it knows that the daemon died in between, and in the deploy of which release, and logs
that; only ``confirmed`` decides which release it starts. Both the write and the removal are synced:
after a power cut, the file of a deploy long over would tell of a crash that never was, and have
``after_drain`` run again.
"""

from __future__ import annotations

import contextlib
import os

from taskd.posix import files

_NAME = "handoff"


def write(state: str, release: str) -> None:
    """Raises OSError (a full disk refuses the deploy)."""
    files.write_atomically(os.path.join(state, _NAME), release.encode("utf-8", "surrogateescape"))


def remove(state: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(os.path.join(state, _NAME))
        files.sync_directory(state)


def read(state: str) -> str | None:
    """The release whose handoff was cut off, or None."""
    try:
        return files.read_own(os.path.join(state, _NAME)).decode("utf-8", "surrogateescape") or None
    except OSError:
        return None
