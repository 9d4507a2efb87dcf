"""Entry of a new image: ``python -P -m taskd.master FD`` (FD: the snapshot's descriptor)."""

import sys

from taskd.master.adopt import main

if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
