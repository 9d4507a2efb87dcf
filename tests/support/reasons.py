"""What the daemon says of an end, without what it guesses."""

from __future__ import annotations


def told(reason: object) -> str:
    """Without the guess that a SIGKILL was the kernel's for want of memory: it goes by a count for
    the whole machine, on which another test may just be short of memory on purpose."""
    return str(reason).partition("; in the ")[0]
