"""The console scripts ``taskd`` and ``taskctl``: a Ctrl-C is no traceback, also in their imports.

Imports nothing: what comes before ``main`` is as short as it can be.
"""

from __future__ import annotations

INTERRUPTED = 130
"""As in ``outcome``, which may not be there yet."""


def taskd() -> int:
    """The console script; returns the exit status."""
    try:
        from taskd.cli.taskd import main

        return main()
    except KeyboardInterrupt:
        return INTERRUPTED


def taskctl() -> int:
    """The console script; returns the exit status."""
    try:
        from taskd.cli.taskctl import main

        return main()
    except KeyboardInterrupt:
        return INTERRUPTED
