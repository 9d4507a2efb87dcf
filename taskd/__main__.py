"""``python -m taskd`` is the command ``taskd``."""

import sys

from taskd.cli.taskd import main

if __name__ == "__main__":
    sys.exit(main())
