"""Entry of a new image, by an exec of the image before it: see ``handoff.first``."""

from __future__ import annotations

import sys

from taskd.handoff.first import main

if __name__ == "__main__":
    sys.exit(main())
