"""The file ``confirmed``: it alone decides which release a start uses.

Written only in the last step of a deploy, by a first start once the release is proven, and by an
operator's ``taskd confirm``: so a refused or half-done deploy never takes effect at a restart.

One JSON object, so that an operator can read it: {"release": path, "previous": path or null,
"fingerprint": hex, "at": Unix seconds, "accepted": [task…], "settings": name, "previous_settings":
name}. ``accepted``: ids of tasks that the release cannot go on with, and in spite of which it was
deployed: they ran on older releases, or waited with a saved state (one id for all that are alike).
They refuse no later deploy either. ``settings``: the file that has what the release was proved with
(``revision.proved``), and ``previous_settings`` that of the release before; empty as written by 0.2
or by an operator: then they are read from taskd.toml anew. Unknown fields are ignored.
"""

from __future__ import annotations

import os

from taskd.errors import ConfigError
from taskd.posix import files
from taskd.record import Record


class Confirmed(Record):
    """The file's content; see the module."""

    release: str
    previous: str | None
    fingerprint: str
    at: float
    accepted: tuple[int, ...] = ()
    settings: str = ""
    previous_settings: str = ""

    def after(self, before: Confirmed | None) -> Confirmed:
        """This, with what came before it. The same release with other settings came before it too;
        the same once more did not."""
        if before is None:
            return self
        is_same = before.release == self.release and (
            before.settings == self.settings or not (before.settings and self.settings)
        )
        if is_same:
            previous, settings = before.previous, before.previous_settings
        else:
            previous, settings = before.release, before.settings
        return self._replace(previous=previous, previous_settings=settings)


def read(path: str) -> Confirmed | None:
    """The confirmed release, or None before the first start. Raises ConfigError if the file cannot
    be read, also when descriptors have run out."""
    try:
        import json  # in here: this fails too when descriptors have run out

        found = json.loads(files.read_own(path).decode("utf-8", "surrogateescape"))
        return Confirmed(
            release=str(found["release"]),
            previous=found.get("previous"),
            fingerprint=str(found.get("fingerprint", "")),
            at=float(found.get("at", 0)),
            accepted=tuple(map(int, found.get("accepted") or ())),
            settings=str(found.get("settings", "")),
            previous_settings=str(found.get("previous_settings", "")),
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
    """A word for a shell. Not shlex: an import fails when descriptors have run out."""
    if text and all(c.isalnum() or c in "@%+=:,./-_" for c in text) and text.isascii():
        return text
    return "'" + text.replace("'", "'\"'\"'") + "'"


def write(path: str, confirmed: Confirmed) -> None:
    """Durable on return. Raises OSError."""
    quoted = [_quote(text) for text in (confirmed.release, confirmed.previous)]
    text = (
        f'{{"release": {quoted[0]}, "previous": {quoted[1]}, '
        f'"fingerprint": "{confirmed.fingerprint}", "at": {confirmed.at!r}, '
        f'"accepted": {list(confirmed.accepted)}, "settings": "{confirmed.settings}", '
        f'"previous_settings": "{confirmed.previous_settings}"}}\n'
    )
    files.write_atomically(path, text.encode("utf-8", "surrogateescape"))


def _quote(text: str | None) -> str:
    """JSON's form of a string, without the 6 ms that importing json costs in the pause."""
    if text is None:
        return "null"
    escaped = "".join(f"\\u{ord(c):04x}" if c in '"\\' or ord(c) < 0x20 else c for c in text)
    return f'"{escaped}"'
