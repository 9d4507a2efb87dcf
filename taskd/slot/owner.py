"""Whether the owner of a slot is dead. Runs in the master; locks nothing and changes nothing.

Death is a fact that the kernel reports, never a guess from a clock. Two facts are needed, since
each of them alone can be true while the worker lives on and does the task's work:

* *The lock is free* says little: user code in the worker that opens and closes the slot file, or
  closes all descriptors as daemon libraries do, or execs another program, drops it. The process
  is alive.
* *The process is gone or a zombie* says little: a worker whose main thread has ended while others
  run is shown as a zombie; a worker in another pid namespace (a container that shares the
  directory) cannot be seen from here, or its pid is another process's. Both still hold their lock.

Both together are proof: a lock belongs to one process alone, and the kernel closes a process's
descriptors before it shows the process as a zombie. What a dead worker left running is found by
``posix.tree``.
"""

from __future__ import annotations

from taskd.posix import locks, process
from taskd.slot.layout import Header


def is_dead(fd: int, header: Header) -> bool:
    """True once the slot's owner can do nothing more. ``fd``: any descriptor of the slot.

    The owner itself must not ask: the kernel tells no process of its own lock.
    """
    return locks.holder(fd) is None and process.is_gone(header.owner)
