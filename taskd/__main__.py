"""``python -m taskd`` is the command ``taskd``."""

import sys

from taskd.cli.entry import taskd

if __name__ == "__main__":
    sys.exit(taskd())
