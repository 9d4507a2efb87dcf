"""Limits as people write them: numbers, rates, and the keys that tasks carry. Pure.

A *template* such as ``customer:{customer_id}`` stands in the code; with a task's arguments it makes
the task's key. Left of the first colon is the limit's name, by which its numbers are found.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from taskd.model.duration import UNITS, measure
from taskd.record import Record

MOST = 8
"""Limits that one task may name."""

LONGEST_KEY = 200
"""Characters of a key."""

LARGEST = 1_000_000

_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.")


class Numbers(Record):
    """``concurrency``: how many at once; ``every``: seconds from one start to the next, of which
    ``burst`` may come at once (None: no such limit)."""

    concurrency: int | None
    every: float | None
    burst: int


def numbers(said: Mapping[str, Any]) -> Numbers | None:
    """From ``concurrency``, ``rate`` and ``burst``; None: there is none of them. Raises ValueError
    with what is to be written."""
    concurrency, rate, burst = (said.get(key) for key in ("concurrency", "rate", "burst"))
    if concurrency is None and rate is None and burst is None:
        return None
    if concurrency is not None and not _is_count(concurrency):
        raise ValueError(f"concurrency must be a whole number from 1 on, not {concurrency!r}")
    if rate is None:
        if burst is not None:
            raise ValueError("burst says how many of a rate may start at once; give a rate too")
        return Numbers(concurrency, None, 1)
    count, seconds = _rate(rate)
    if burst is None:
        burst = max(1, int(count / seconds))
    if not _is_count(burst):
        raise ValueError(f"burst must be a whole number from 1 on, not {burst!r}")
    return Numbers(concurrency, seconds / count, burst)


def stated(found: Any) -> Numbers:
    """From a manifest: a list of the three. Raises ValueError."""
    if isinstance(found, list) and len(found) == 3:
        concurrency, every, burst = found
        is_rate = every is None or (type(every) in (int, float) and 0 < every < 1e9)
        if is_rate and _is_count(burst) and (concurrency is None or _is_count(concurrency)):
            return Numbers(concurrency, every, burst)
    raise ValueError(f"numbers of a limit that cannot be: {found!r:.60}")


def _is_count(value: Any) -> bool:
    return type(value) is int and 1 <= value <= LARGEST


def _rate(text: Any) -> tuple[int, float]:
    """``100/min``, ``5/s``, ``1/10min``: how many, in how many seconds."""
    count, slash, unit = text.partition("/") if isinstance(text, str) else ("", "", "")
    unit = unit.strip()
    try:
        seconds = UNITS[unit] if unit in UNITS else measure(unit)
    except ValueError:
        seconds = 0.0
    count = count.strip()
    if not (slash and seconds > 0 and count.isascii() and count.isdigit()):
        raise ValueError(f'rate must be a text such as "100/min", "5/s" or "1/10min", not {text!r}')
    if not 1 <= int(count) <= LARGEST:
        raise ValueError(f"rate: {text!r}: from 1 to {LARGEST} starts")
    return int(count), seconds


def in_words(concurrency: int | None, every: float | None, burst: int) -> str:
    """``2 at once, one start every 0.6 s (up to 10 at once)``."""
    words = [] if concurrency is None else [f"{concurrency} at once"]
    if every is not None:
        more = f", up to {burst} together after a pause" if burst > 1 else ""
        words.append(f"one start every {every:g} s{more}")
    return " and ".join(words) or "no limit"


def check_name(name: Any) -> str:
    """Raises ValueError."""
    if not isinstance(name, str) or not name or not _NAME.issuperset(name):
        raise ValueError(f"a limit's name has letters, digits, and any of _-., not {name!r}")
    if len(name) > LONGEST_KEY // 2:
        raise ValueError(f"a limit's name has at most {LONGEST_KEY // 2} characters")
    return name


def parts(template: Any) -> list[tuple[str, str | None]]:
    """A template as texts, each with the argument behind it, or None. Raises ValueError."""
    if not isinstance(template, str):
        raise ValueError(f'a limit is a text such as "customer:{{customer_id}}", not {template!r}')
    name, _, rest = template.partition(":")
    check_name(name)
    found: list[tuple[str, str | None]] = []
    text = template[: len(template) - len(rest)]
    while rest:
        more, brace, rest = rest.partition("{")
        text += more
        if brace:
            argument, brace, rest = rest.partition("}")
            if not brace or not argument.isidentifier():
                raise ValueError(
                    f"limit {template!r}: between braces stands the name of an argument, alone"
                )
            found.append((text, argument))
            text = ""
    return [*found, (text, None)] if text or not found else found


def key(template: str, args: Mapping[str, Any]) -> str:
    """The key of a task with these arguments. Raises ValueError."""
    found = ""
    for text, argument in parts(template):
        found += text
        if argument is not None:
            value = args.get(argument)
            if type(value) not in (str, int, bool):
                raise ValueError(
                    f"the limit {template!r} needs {argument} as a text, a whole number or a bool, "
                    f"not {value!r:.60}"
                )
            found += str(value).replace("\\", "\\\\").replace("\n", "\\n")
    if len(found) > LONGEST_KEY or "\0" in found:
        raise ValueError(
            f"the limit {template!r}: a key has at most {LONGEST_KEY} characters and no NUL"
        )
    return found


def keys(entry: Mapping[str, Any], args: Mapping[str, Any]) -> tuple[str, ...]:
    """Those that a new task carries, by its entry in the manifest. Raises ValueError."""
    said = entry.get("limits") or {}
    with_defaults = {**(said.get("defaults") or {}), **args}
    return tuple(sorted({key(each, with_defaults) for each in said.get("keys") or ()}))
