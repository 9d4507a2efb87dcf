"""What an attempt has kept: its slot's records on top of what the store has.

Runs in the master, for dead workers' slots, and in a deploy's probe worker, for running ones.
"""

from __future__ import annotations

from taskd.protocol.records import check
from taskd.protocol.saved import Kind, RawSaved
from taskd.slot import reader
from taskd.slot.reader import Content


def read(fd: int) -> Content:
    """The slot's content, with the fields that the master reads checked. Raises Error, OSError."""
    content = reader.read(fd)
    told = {Kind.BEGIN: content.begin, Kind.PROGRESS: content.progress, Kind.END: content.end}
    for kind, fields in told.items():
        if fields is not None:
            check(kind, fields)
    return content


def is_of(content: Content, task: int, attempt: int) -> bool:
    """Whether the slot holds that attempt of that task."""
    begin = content.begin
    return begin is not None and (begin["task"], begin["attempt"]) == (task, attempt)


def add_up(content: Content, stored: bytes | None) -> RawSaved:
    """All that an attempt has kept. ``stored``: the saved state in the store when it began; it is
    not read where the slot has a snapshot. Raises Error, KeyError or TypeError for records with
    wrong fields."""
    assert content.begin is not None
    base = stored if content.snapshot is None else content.snapshot
    kept = RawSaved(content.begin["version"]) if base is None else RawSaved.decode(base)
    for record in content.records:
        kept.apply(record.kind, record.fields)
    return kept
