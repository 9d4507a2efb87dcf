"""The trial: the new image's code adopts a copy of the live state, as a child, and changes nothing.

It has the snapshot on descriptor 0 and the verdict's pipe on 1, and none of the master's
descriptors. It becomes, by exec, what the deploy's exec will become: the same Python with the same
words (``image.command``), so that what fails at its first line is refused here. There ``first``
finds TRIAL set, and goes through the same steps up to the decision.

A trial writes nothing and exits 0, or it writes one line saying at which step what failed, and
exits 1.
"""

from __future__ import annotations

import os
import sys

from taskd.upgrade import image, steps


def main() -> int:
    """Returns only by raising OSError."""
    os.environ[steps.IS_TRIAL] = "1"
    words = image.command(sys.orig_argv[0], 0)
    os.execv(words[0], words)
