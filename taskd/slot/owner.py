"""Whether the owner of a slot is dead. Runs in the master, which asks; takes and changes nothing.

Death is a fact that the kernel reports, never a guess from a clock. Two facts are needed, since
each of them alone can be false while the worker lives on and does the task's work:

* *The lock is free* says little: user code in the worker that opens and closes the slot file, or
  closes all descriptors as daemon libraries do, or execs another program, drops it. The process
  is alive.
* *The process is gone or a zombie* says little: a worker whose main thread has ended while others
  run is shown as a zombie, and one in another pid namespace (a container that shares the
  directory) is not to be seen from here, or its pid stands for someone else. Their locks are held.

Both together are proof: the kernel drops the lock in no other process's name, and closes a
process's descriptors before it shows it as a zombie. What the dead worker left running is another
question; see ``posix.tree``.
"""

from __future__ import annotations

from taskd.posix import locks, process
from taskd.slot.layout import Header


def is_dead(fd: int, header: Header) -> bool:
    """True once that slot's owner can do nothing more. ``fd``: any descriptor of the slot.

    Not for the owner itself: a process is never told about its own lock.
    """
    return locks.holder(fd) is None and process.is_gone(header.owner)
