"""What a daemon of taskd 0.1 execs in a deploy: ``python -P -m taskd.master FD``.

It always execs the Python that it runs on; it comes here if its taskd was replaced by this one
meanwhile (``pip install -U`` in place). FD is its snapshot. The code that it ran is not there any
more, so there is nothing to go back to: a failure is a crash, and the service manager's next start
takes the release that ``confirmed`` names. From 0.2 on a new image begins in ``taskd.takeover``.
"""

from __future__ import annotations

import gc
import os
import sys

gc.disable()  # as in ``takeover.first``

from taskd.posix import spawn  # noqa: E402


def main() -> int:
    """The exit status of the daemon, once it has served to its end."""
    from taskd.handoff import adopt

    os.environ.setdefault(spawn.LAUNCHER, sys.executable)
    adopted = adopt.adopt(int(sys.argv[1]))
    adopted.confirm()
    return adopted.serve()


if __name__ == "__main__":
    sys.exit(main())
