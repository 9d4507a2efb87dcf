"""``taskd confirm PATH``: which release the next start runs, where the daemon cannot be asked.

Runs in the command line, with the daemon stopped or failing: the file ``confirmed`` is what any
start goes by, and only a daemon that serves can deploy. As root it becomes the state directory's
owner first, so that the file is the service's, and the release is looked at as the service sees it
(but for the unit's sandbox). The state is locked meanwhile, as a daemon locks it. Whether the
release works is for the start to prove, as ever.
"""

from __future__ import annotations

import os
import time
from argparse import ArgumentParser, Namespace
from contextlib import suppress

from taskd import paths
from taskd.cli.outcome import DONE
from taskd.errors import ConfigError, Error
from taskd.revision import confirmed, release


def add_confirm(parser: ArgumentParser) -> None:
    """``confirm [--state DIR] PATH``"""
    parser.description = (
        "Has the next start of the daemon run the release at PATH, as if it had been deployed: for "
        "a daemon that does not start any more since the release that was deployed last is gone or "
        "broken. Refused while a daemon runs; `taskctl deploy PATH` is for that."
    )
    parser.add_argument("path", metavar="PATH", help="the release's directory")
    parser.add_argument(
        "--state",
        metavar="DIR",
        help="the daemon's state directory (default: yours; the system's for root)",
    )


def do_confirm(args: Namespace) -> int:
    """Write the file ``confirmed``. Raises Error."""
    state = os.path.abspath(args.state or paths.places(os.environ, os.getuid()).state)
    path = os.path.abspath(args.path)
    import json  # noqa: F401 (before we are another user, who may not read where Python is)

    from taskd.master.loop import statedir

    _become_owner(state)
    found = release.resolve(path)
    if not os.access(found, os.R_OK | os.X_OK):
        raise Error(f"user {os.getuid()}, whom {state} belongs to, may not read {found}")
    places = paths.Places(state, "", "")
    statedir.take_locks(places)
    before = None
    with suppress(ConfigError):
        before = confirmed.read(places.confirmed)
    # What `taskctl rollback` goes back to, as far as it is known. The start reads taskd.toml anew.
    now = confirmed.Confirmed(found, None, "", time.time()).after(before)
    confirmed.write(places.confirmed, now)
    print(f"the next start runs {found}")
    return DONE


def _become_owner(state: str) -> None:
    """Raises Error if there is no such directory, or it belongs to a user we cannot become."""
    try:
        found = os.stat(state)
    except OSError as error:
        raise Error(f"cannot use the state directory {state}: {error.strerror}") from error
    if found.st_uid == os.getuid():
        return
    if os.getuid() != 0:
        raise Error(f"{state} belongs to user {found.st_uid}: only that user and root may do this")
    os.setgroups([])
    os.setgid(found.st_gid)
    os.setuid(found.st_uid)
