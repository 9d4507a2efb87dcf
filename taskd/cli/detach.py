"""``taskd run --detach``: start the daemon in the background and return once it is ready.

Three processes: the one the user called (it waits for the verdict), one in between (it makes the
daemon a process of its own and is gone at once), and the daemon. The daemon says that it is ready
as it would say to a service manager: by ``READY=1`` to $NOTIFY_SOCKET, which here is the waiting
process's. That it died is seen by a pipe whose other end it alone holds; then the reason is what
it has written to its log. Everything it prints goes to ``taskd.log`` in the directory of logs.

The daemon writes and locks the pid file itself, once it holds the state directory's lock (see
``posix.pidfile``), and removes it at its end. Its log is opened for appending: it may be copied and
truncated by whoever rotates it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import sys
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

from taskd import paths
from taskd.cli import outcome, text
from taskd.posix import files, pidfile

_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: as unix(7) has them
_SHOWN = 20


class _Start(NamedTuple):
    """What the waiting process knows of the daemon that it has started."""

    pid: int
    alive: int  # the pipe's end: at its end when the daemon is gone
    notices: socket.socket


def run(daemon: Callable[[], int]) -> int:
    """Returns twice: in the caller with 0 (ready) or 1, in the daemon with its exit status."""
    where = paths.directories(os.environ, os.getuid())
    paths.ensure(where)
    log = os.path.join(where.logs, "taskd.log")
    size = os.path.getsize(log) if os.path.exists(log) else 0
    notices, address = _listen()
    alive, held = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    # Ctrl-C waits until we know whom it concerns: from a call that it interrupts no pid comes back.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    between = os.fork()
    if between == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        notices.close()  # now: later its number is something else's
        os.close(alive)
        return _daemon(daemon, address, held, log, where)
    os.close(held)
    try:
        os.waitpid(between, 0)
        start = _Start(_read_pid(alive), alive, notices)
        return outcome.DONE if _is_ready(start, before) else _died(log, size)
    finally:
        os.close(alive)
        notices.close()


def _listen() -> tuple[socket.socket, str]:
    """A socket for notices, without a file that could be left behind or be too long a path."""
    notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notices.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    name = f"taskd-start-{os.urandom(12).hex()}"
    notices.bind(f"\0{name}")
    return notices, f"@{name}"


def _daemon(
    daemon: Callable[[], int], address: str, held: int, log: str, where: paths.Directories
) -> int:
    from daemon import DaemonContext

    os.environ["NOTIFY_SOCKET"] = address
    os.environ[pidfile.VARIABLE] = where.pid_file
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    with open(files.open_own(log, flags), "ab", buffering=0) as output:
        context = DaemonContext(
            detach_process=True,
            files_preserve=[held],
            stdout=output,
            stderr=output,
            umask=0o077,
            prevent_core=False,  # it would bind the tasks too
            signal_map={},  # the daemon sets its own
        )
        with context:
            os.write(held, b"%d\n" % os.getpid())
            return daemon()


def _is_ready(start: _Start, mask: Collection[int]) -> bool:
    """Wait for the verdict; Ctrl-C, from now on or already, ends the daemon, however far it is.

    ``mask``: the signals that were blocked before.
    """
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return bool(start.pid) and _wait(start)
    except KeyboardInterrupt:
        if start.pid:
            os.kill(start.pid, signal.SIGTERM)
        raise


def _read_pid(alive: int) -> int:
    """The daemon's pid, which it says first; 0 if it died before."""
    return int(os.read(alive, 100) or 0)


def _wait(start: _Start) -> bool:
    """True once the daemon is ready, False once it is gone; no deadline, an app may be large."""
    with _signals() as signalled:
        poll = select.poll()
        for waited_for in (start.notices, start.alive, signalled):
            poll.register(waited_for, select.POLLIN)
        while True:
            events = dict(poll.poll())
            if signalled in events:
                os.read(signalled, 4096)  # whatever the signal means, it has happened by now
            if start.notices.fileno() in events and _says_ready(start):
                return True
            if start.alive in events and start.notices.fileno() not in events:
                return False


@contextlib.contextmanager
def _signals() -> Iterator[int]:
    """A descriptor that is ready to be read once a signal has come: one that comes just before a
    poll is only noted by Python, and would not be acted on until the poll returns."""
    signalled, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    try:
        yield signalled
    finally:
        signal.set_wakeup_fd(before)
        os.close(signalled)
        os.close(waker)


def _says_ready(start: _Start) -> bool:
    """Only the daemon is believed: anybody on the machine may send to such a socket."""
    message, extra, _, _ = start.notices.recvmsg(4096, socket.CMSG_SPACE(_CREDENTIALS.size))
    senders = [
        _CREDENTIALS.unpack(data)[0]
        for level, kind, data in extra
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS)
    ]
    return senders == [start.pid] and b"READY=1" in message.splitlines()


def _died(log: str, size: int) -> int:
    """Pass on what the daemon wrote, the reason being at its end."""
    try:
        with open(log, encoding="utf-8", errors="replace") as file:
            file.seek(size)
            written = file.read().splitlines()
    except OSError:
        written = []
    for line in written[-_SHOWN:] or [f"taskd: the daemon ended at once; see {log}"]:
        print(text.clean(line), file=sys.stderr)
    return outcome.FAILED
