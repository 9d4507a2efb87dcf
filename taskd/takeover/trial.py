"""The trial: the new image's code adopts a copy of the live state, as a child, and changes nothing.

Entry: ``python -P -m taskd.takeover.trial`` with the snapshot on descriptor 0 and the verdict's
pipe on 1. It has none of the master's descriptors: each one in the ledger is stood in for by an
empty one of the same kind at the same number, so that the very code that will adopt runs here. The
store is opened for reading only.

It writes nothing and exits 0, or one line saying at which step what failed, and exits 1.
"""

from __future__ import annotations

import os
import socket
import sys


def main() -> int:
    """The exit status: 0 if this code can take over."""
    from taskd.upgrade import steps

    steps.here.is_trial = True
    try:
        _try()
    except BaseException as error:  # whatever fails: the verdict is no
        text = f"at the step '{steps.here.step}': {type(error).__name__}: {error}"
        os.write(1, text.encode(errors="replace")[:4000])
        return 1
    return 0


def _try() -> None:
    from taskd.upgrade import snapshot, steps

    steps.reach("read the snapshot")
    taken = snapshot.read(0)
    from taskd.handoff import adopt, load
    from taskd.store.reader import SqliteReader

    steps.reach("check the descriptors")
    handed = load.entries(taken)
    for entry in handed:
        _stand_in(entry.fd, entry.kind.value)
    adopt.check_kinds(handed)
    steps.reach("load")
    master = load.Loader(taken).load()
    steps.reach("check the children")
    adopt.check_children(master, may_have_gone=True)
    steps.reach("open the store")
    SqliteReader(master.places.store).counts()


def _stand_in(fd: int, kind: str) -> None:
    """Something of the right kind at ``fd``."""
    if kind in ("slot", "lock", "directory"):
        made = os.open("/", os.O_RDONLY) if kind == "directory" else os.memfd_create("trial")
        os.dup2(made, fd)
        if made != fd:
            os.close(made)
        return
    ours, theirs = socket.socketpair()
    theirs.close()
    number = ours.detach()
    os.dup2(number, fd)
    if number != fd:
        os.close(number)


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)
