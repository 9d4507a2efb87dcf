"""Entry of the trial of a new image, run by the master before the exec: see ``handoff.trial``."""

from __future__ import annotations

import sys

from taskd.handoff.trial import main

if __name__ == "__main__":
    sys.exit(main())
