"""What a zygote (or a worker that is spawned afresh) is told at its start.

One CBOR map in a memory file on descriptor 0; unknown fields are ignored.
"""

from __future__ import annotations

from typing import Any

import cbor2

from taskd.errors import ProtocolError
from taskd.protocol import cbor, fields
from taskd.record import Record


class Boot(Record):
    """``id``: the zygote's random id. ``worker``: set in a worker that was spawned afresh.

    ``socket``: path of worker.sock. ``release``: the release's real path. ``revision``: its name.
    ``modules``: to import. ``fork``: "auto", "always" or "never". ``slots``: the slot directory.
    ``sockets``: the directory that tasks find as $TASKD_SOCKET. ``import_within``: seconds after
    which a process that still imports the app ends itself. ``records``: the directory for the
    record that the zygote leaves (empty: it leaves none); ``number`` and ``app``: the revision's
    number and configuration, to stand in it. ``orphan_grace``: seconds that a worker goes on
    without a master. ``group``: the control group that a worker is to join, or empty; then
    ``ungrouped`` is why it could not, if it should have.
    """

    id: bytes
    socket: str
    release: str
    revision: str
    modules: list[str]
    fork: str
    slots: str
    sockets: str
    worker: bytes | None = None
    import_within: float = 0.0
    records: str = ""
    number: int = 0
    app: dict[str, Any] | None = None
    orphan_grace: float = 600.0
    group: str = ""
    ungrouped: str = ""


def encode(boot: Boot) -> bytes:
    return cbor2.dumps(boot._asdict())


def decode(raw: bytes) -> Boot:
    """Raises ProtocolError."""
    try:
        return fields.read(Boot, cbor.loads(raw))
    except ProtocolError as error:
        raise ProtocolError(f"what a zygote is told at its start: {error}") from error
