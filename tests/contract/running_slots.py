"""Run by test_store_schedules: runs one slot after the other, as a master would, until a kill.

KIND PLACE [DEADLY]: with DEADLY it kills itself within the first batch: before its operation ("0"),
or behind it, before the commit ("1"). Each line on stdout is a slot whose task was acknowledged.
"""

from __future__ import annotations

import os
import sys
import time

from applying import Deadly
from stores import STORES
from support.answers import answer

from taskd.store.api import Operation, Submit
from taskd.store.queries import Schedules
from taskd.store.schedule_api import Definition, Due, Slot, TakeUp


def main(kind: str, place: str, deadly: int | None = None) -> None:
    opens, where = STORES[kind], (place, time.time)
    store, reader = opens.store(*where), opens.reader(*where)
    if not answer(reader, Schedules()):
        store.apply(store.last() + 1, [TakeUp((Definition("s", "every 1s", b""),))])
    while True:
        (known,) = answer(reader, Schedules())
        slot = float(int(known.mark) + 1)
        new = Submit(os.urandom(16), 1, "s", 1, b"\xa0", "", "q", 0, None, None, 0, None, 1.0)
        batch: list[Operation] = [
            Due("s", known.mark, slot, (Slot(slot, new),), (), "run", 0.0, time.time())
        ]
        (applied,) = store.apply(
            store.last() + 1, batch if deadly is None else Deadly(batch, deadly)
        )
        assert len(applied.result) == 1
        os.write(1, b"%d\n" % slot)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
