"""Entry of a new image: ``python -P -m taskd.master FD`` (FD: the snapshot's descriptor)."""

import gc

gc.disable()  # nothing of what a start makes is garbage, and looking for it is a tenth of the pause

import sys  # noqa: E402

from taskd.master.adopt import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
