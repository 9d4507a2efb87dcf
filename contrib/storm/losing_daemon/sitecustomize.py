"""Makes a daemon whose store loses answers: Python imports this at its start, if this folder is on
its path.

So it is in every image of the master, also after an exec, and taskd's own code knows nothing of it.
$STORM_LOSES: the part of all commits whose answer is lost, and the file that tells which.
"""

import os
import sys


def lose() -> None:
    from contrib.storm.losing import LosesAnswers, by_chance
    from taskd.store import sqlite

    rate, _, told = os.environ["STORM_LOSES"].partition(" ")
    opened = sqlite.SqliteStore
    sqlite.SqliteStore = lambda path, **named: LosesAnswers(  # type: ignore[misc, assignment]
        opened(path, **named), by_chance(float(rate), told)
    )


if "STORM_LOSES" in os.environ and {"run", "taskd.takeover.first"} & set(sys.orig_argv):
    lose()
