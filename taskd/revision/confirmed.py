"""The file ``confirmed``: the one thing that decides which release a start uses.

Written in the last step of a deploy alone (and by a first start, once the release has proved
itself, and by an operator's ``taskd confirm``), never at any other time: a refused or half-done
deploy cannot come alive at a restart.
One JSON object, so that an operator can read it: {"release": path, "previous": path or null,
"fingerprint": hex, "at": Unix seconds, "accepted": [task…]}; ``accepted``: tasks that ran then
on older releases, or waited with something saved (one for all that are alike), and that this one
cannot go on with, for which it was deployed all the same (what was accepted refuses no later
deploy). Unknown fields are ignored.
"""

from __future__ import annotations

import os

from taskd.errors import ConfigError
from taskd.posix import files
from taskd.record import Record


class Confirmed(Record):
    release: str
    previous: str | None
    fingerprint: str
    at: float
    accepted: tuple[int, ...] = ()


def read(path: str) -> Confirmed | None:
    """What is confirmed, or None before the first start. Raises ConfigError if it is unreadable,
    also for want of a descriptor."""
    try:
        import json  # in here: without a descriptor, this fails too

        found = json.loads(files.read_own(path).decode("utf-8", "surrogateescape"))
        return Confirmed(
            release=str(found["release"]),
            previous=found.get("previous"),
            fingerprint=str(found.get("fingerprint", "")),
            at=float(found.get("at", 0)),
            accepted=tuple(map(int, found.get("accepted") or ())),
        )
    except FileNotFoundError:
        return None
    except (OSError, ImportError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"cannot read {path}, which names the release to start: {error}. "
            f"Name one with {how_to_name(path)}"
        ) from error


def how_to_name(path: str, release: str = "PATH") -> str:
    """The command that writes the file at ``path`` while no daemon runs: as its owner, or root."""
    return f"`taskd confirm --state {_word(os.path.dirname(path))} {_word(release)}`"


def _word(text: str) -> str:
    """A word for a shell, without importing shlex: this is told without a descriptor as well."""
    if text and all(c.isalnum() or c in "@%+=:,./-_" for c in text) and text.isascii():
        return text
    return "'" + text.replace("'", "'\"'\"'") + "'"


def write(path: str, confirmed: Confirmed) -> None:
    """Durable on return. Raises OSError."""
    quoted = [_quote(text) for text in (confirmed.release, confirmed.previous)]
    text = (
        f'{{"release": {quoted[0]}, "previous": {quoted[1]}, '
        f'"fingerprint": "{confirmed.fingerprint}", "at": {confirmed.at!r}, '
        f'"accepted": {list(confirmed.accepted)}}}\n'
    )
    files.write_atomically(path, text.encode("utf-8", "surrogateescape"))


def _quote(text: str | None) -> str:
    """JSON's form of a string, without the 6 ms that importing json costs in the pause."""
    if text is None:
        return "null"
    escaped = "".join(f"\\u{ord(c):04x}" if c in '"\\' or ord(c) < 0x20 else c for c in text)
    return f'"{escaped}"'
