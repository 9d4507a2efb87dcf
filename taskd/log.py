"""The daemon's own log: one line per transition, with fields.

Runs in the master. The fields ``task= attempt= worker= revision=`` say what a line is about. If
stderr is systemd's journal ($JOURNAL_STREAM names it), each line is sent by the journal's native
protocol, as an entry with these fields (``journalctl TASK=7``); if the journal's socket cannot be
reached, it is written to stderr with its level in front, which systemd reads. Else it is written
to stderr with the time, in colours on a terminal.

Lines are not buffered: an exec loses none. The log never waits: while a reader hangs (journald, a
pipe, a stopped terminal) lines are dropped, and their number is logged once it reads again.

Source: https://systemd.io/JOURNAL_NATIVE_PROTOCOL/, systemd.exec(5) on $JOURNAL_STREAM.
"""

from __future__ import annotations

import os
import select
import socket
import time
from typing import Any

JOURNAL = "/run/systemd/journal/socket"

_INFO, _WARNING, _ERROR = 6, 4, 3
_LEVELS = {_INFO: "", _WARNING: "warning: ", _ERROR: "error: "}
_COLOURS = {_WARNING: "\x1b[33m", _ERROR: "\x1b[31m"}
_PLAIN = "\x1b[0m"
_NAMED = frozenset(("task", "attempt", "worker", "revision"))  # others: with TASKD_ before them
_LONGEST = 4096
"""Bytes of a line that a pipe takes whole or not at all."""

_LONGEST_ENTRY = 64 * 1024
_lost = 0


def info(text: str, **fields: Any) -> None:
    _say(_INFO, text, fields)


def warning(text: str, **fields: Any) -> None:
    _say(_WARNING, text, fields)


def error(text: str, **fields: Any) -> None:
    _say(_ERROR, text, fields)


def why_it_ends(text: str) -> None:
    """Say why this process fails: an error in the journal, or else a line on stderr without the
    time, for the operator who started it."""
    if is_journal():
        error(text)
    else:
        _put_line(f"taskd: {text}")


def lines(text: str) -> None:
    """Lines that belong to the line before, such as a traceback. One entry in the journal."""
    found = [_clean(line) for line in text.rstrip().splitlines()]
    if found and not (is_journal() and _send(_INFO, "\n".join(found), {})):
        for line in found:
            _write(_INFO, f"  {line}")


def _say(level: int, text: str, fields: dict[str, Any]) -> None:
    shown = "".join(f" {key}={_value(value)}" for key, value in fields.items())
    message = f"{_clean(text)}{shown}"
    if not (is_journal() and _send(level, message, fields)):
        _write(level, message)


def _clean(text: str) -> str:
    """One line without control characters, whatever a user or a peer has put into it."""
    return text if text.isprintable() else repr(text)[1:-1]


def _value(value: Any) -> str:
    text = value.hex()[:8] if isinstance(value, bytes) else str(value)
    return text if text.isprintable() and text and " " not in text else repr(text)


# ── the journal ──────────────────────────────────────────────────────────────────────────────


def is_journal() -> bool:
    """Whether stderr is the stream by which systemd connects a service with the journal."""
    named = os.environ.get("JOURNAL_STREAM")
    if not named:
        return False
    try:
        stderr = os.fstat(2)
    except OSError:
        return False
    return named == f"{stderr.st_dev}:{stderr.st_ino}"


def _send(level: int, message: str, fields: dict[str, Any]) -> bool:
    """Send an entry to the journal. False if its socket cannot be reached; True if the entry was
    sent, or dropped since journald hangs."""
    global _lost
    entry = [_field("MESSAGE", message), _field("PRIORITY", str(level)),
             _field("SYSLOG_IDENTIFIER", "taskd")]  # fmt: skip
    for key, value in fields.items():
        name = key.upper() if key in _NAMED else f"TASKD_{key.upper()}"
        entry.append(_field(name, value.hex() if isinstance(value, bytes) else str(value)))
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
            if _lost:
                note = _field("MESSAGE", _lost_in_words()) + _field("PRIORITY", str(_WARNING))
                journal.sendto(note, socket.MSG_DONTWAIT, JOURNAL)
                _lost = 0
            journal.sendto(b"".join(entry), socket.MSG_DONTWAIT, JOURNAL)
    except BlockingIOError:  # journald hangs, and the stream to it would too
        _lost += 1
    except OSError:
        return False
    return True


def _field(name: str, value: str) -> bytes:
    """A field in the native protocol: with its length if the value has more than one line."""
    raw = value.encode(errors="replace")[:_LONGEST_ENTRY]
    between = b"\n" + len(raw).to_bytes(8, "little") if b"\n" in raw else b"="
    return name.encode() + between + raw + b"\n"


# ── stderr ───────────────────────────────────────────────────────────────────────────────────


def _write(level: int, message: str) -> None:
    """Write to stderr, or drop the line while stderr takes nothing."""
    global _lost
    poll = select.poll()
    poll.register(2, select.POLLOUT)
    if not any(event & select.POLLOUT for _, event in poll.poll(0)):
        _lost += 1
        return
    if _lost:
        note, _lost = _lost_in_words(), 0
        _put(_WARNING, note)
    _put(level, message)


def _put(level: int, message: str) -> None:
    if is_journal():
        before = f"<{level}>"
    else:
        word = _LEVELS[level]
        if word and os.isatty(2) and not os.environ.get("NO_COLOR"):
            word = f"{_COLOURS[level]}{word}{_PLAIN}"
        before = f"{time.strftime('%H:%M:%S ')}{word}"
    _put_line(f"{before}{message}")


def _put_line(line: str) -> None:
    raw = line.encode(errors="replace")
    if len(raw) >= _LONGEST:
        raw = raw[: _LONGEST - 5] + b" ..."
    try:
        os.write(2, raw + b"\n")
    except OSError:
        return  # a log that cannot be written does not stop the daemon


def _lost_in_words() -> str:
    return f"{_lost} lines of this log were lost, since its reader hung"
