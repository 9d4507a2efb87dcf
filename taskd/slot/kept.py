"""What an attempt has kept: its slot's records on top of what the store has.

Runs in the master, for the dead, and in the probe worker of a deploy, for those that run.
"""

from __future__ import annotations

from taskd.protocol.rawsaved import RawSaved
from taskd.protocol.records import check
from taskd.protocol.saved import Kind
from taskd.slot import reader
from taskd.slot.reader import Content


def read(fd: int) -> Content:
    """What stands there, with nothing in it that we would trip over. Raises Error, OSError."""
    content = reader.read(fd)
    told = {Kind.BEGIN: content.begin, Kind.PROGRESS: content.progress, Kind.END: content.end}
    for kind, fields in told.items():
        if fields is not None:
            check(kind, fields)
    return content


def is_of(content: Content, task: int, attempt: int) -> bool:
    """Whether it is that attempt's."""
    begin = content.begin
    return begin is not None and (begin["task"], begin["attempt"]) == (task, attempt)


def add_up(content: Content, stored: bytes | None) -> RawSaved:
    """What an attempt has kept in all; ``stored``: what the store had when it began, which nothing
    asks for where there is a snapshot. Raises Error, KeyError, TypeError for records that are
    not what they should be."""
    assert content.begin is not None
    base = stored if content.snapshot is None else content.snapshot
    kept = RawSaved(content.begin["version"]) if base is None else RawSaved.decode(base)
    for record in content.records:
        kept.apply(record.kind, record.fields)
    return kept
