"""Arguments that several verbs share."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from typing import TYPE_CHECKING

from taskd.model import moment as moments
from taskd.model.duration import measure

if TYPE_CHECKING:
    from datetime import datetime

_LARGEST_ID = 2**63 - 1


def add_ids(parser: ArgumentParser) -> None:
    """One or more task ids, as ``args.ids``."""
    parser.add_argument("ids", metavar="ID", nargs="+", type=task_id, help="a task's id")


def add_json(parser: ArgumentParser, what: str) -> None:
    """``--json``, with what is printed then."""
    parser.add_argument("--json", action="store_true", help=f"print {what}")


def task_id(word: str) -> int:
    """A task id: a number from 1."""
    if not (word.isascii() and word.isdigit()) or not 1 <= int(word[:20]) <= _LARGEST_ID:
        raise ArgumentTypeError(f"{word!r} is not a task id (a number, as submit prints it)")
    return int(word)


def at_least_one(word: str) -> int:
    """A whole number from 1."""
    if not (word.isascii() and word.isdigit()) or int(word[:20]) < 1:
        raise ArgumentTypeError(f"{word!r} is not a whole number from 1")
    return int(word[:20])


def user_name(uid: int | None) -> str:
    """The name of that user here; his number if there is none."""
    import pwd

    if uid is None:
        return ""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def user_id(word: str) -> int:
    """The uid of a user's name, or a uid."""
    import pwd

    if word.isascii() and word.isdigit():
        return int(word[:10])
    try:
        return pwd.getpwnam(word).pw_uid
    except KeyError:
        raise ArgumentTypeError(f"there is no user {word!r}") from None


def past(word: str) -> float:
    """A date and time in ISO 8601 (with an offset, or of here), or how long ago: ``2h``, ``1d``."""
    import time
    from datetime import datetime

    try:
        return time.time() - measure(word)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(word).timestamp()
    except (ValueError, OverflowError):
        raise ArgumentTypeError(
            f"{word!r} is neither a time such as 2026-12-01T09:30 nor how long ago, such as 2h"
        ) from None


def duration(word: str) -> float:
    """A time with its unit, in seconds: ``90s``, ``10min``, ``2h``, ``1d``."""
    try:
        found = measure(word)
    except ValueError:
        found = 0.0
    if found <= 0:
        raise ArgumentTypeError(f"{word!r} is not a time such as 90s, 10min, 2h or 1d")
    return found


def moment(word: str) -> datetime:
    """A time with its offset from UTC: ``2026-12-02T03:00+01:00``."""
    try:
        return moments.parse(word)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None


def seconds(word: str) -> float:
    """A time in seconds, 0 or more."""
    try:
        value = float(word)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise ArgumentTypeError(f"{word!r} is not a number of seconds")
    return value
