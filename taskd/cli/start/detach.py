"""``taskd run --detach``: start the daemon in the background and return once it is ready.

Three processes: the one the user called (it waits for the verdict), one in between (it makes the
daemon a process of its own and is gone at once), and the daemon. The daemon says that it is ready
as it would say to a service manager: by ``READY=1`` to $NOTIFY_SOCKET, which here is the waiting
process's. The daemon writes its pid into a pipe. The waiting process sees the daemon's death by a
pidfd, not by a descriptor that the daemon holds: the daemon execs the Python of a release that has
one, and would have to keep the descriptor open over that. The reason of a death is what the daemon
has written to its log. Everything it prints goes to ``taskd.log`` in the
directory of logs.

The daemon writes and locks the pid file itself, once it holds the state directory's lock (see
``posix.pidfile``), and removes it at its end. Its log is opened for appending: a log
rotation may copy and truncate it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import sys
from collections.abc import Callable, Collection

from taskd import paths
from taskd.cli import outcome
from taskd.cli.output import text
from taskd.posix import files, pidfile
from taskd.record import Record

_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: as unix(7) has them


class _Start(Record):
    """What the waiting process knows of the daemon that it has started."""

    pid: int
    process: int  # its pidfd: ready to be read when the daemon is gone
    notices: socket.socket


def run(daemon: Callable[[], int]) -> int:
    """Returns twice: in the caller with 0 (ready) or 1, in the daemon with its exit status."""
    where = paths.places(os.environ, os.getuid())
    paths.ensure(where)
    log = os.path.join(where.logs, "taskd.log")
    size = os.path.getsize(log) if os.path.exists(log) else 0
    # In the abstract namespace: no file that could be left behind or be too long a path.
    name = f"taskd-start-{os.urandom(12).hex()}"
    notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notices.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    notices.bind(f"\0{name}")
    said, says = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    # Ctrl-C waits until we know the daemon's pid: a call that it interrupts would not return it.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    between = os.fork()
    if between == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        notices.close()  # now: later its number is something else's
        os.close(said)
        return _daemon(daemon, f"@{name}", says, log, where)
    os.close(says)
    os.waitpid(between, 0)
    try:
        return outcome.DONE if _is_ready(_started(said, notices), before) else _died(log, size)
    finally:
        notices.close()


def _daemon(
    daemon: Callable[[], int], address: str, says: int, log: str, where: paths.Places
) -> int:
    from daemon import DaemonContext

    os.environ["NOTIFY_SOCKET"] = address
    os.environ[pidfile.VARIABLE] = where.pid_file
    appended = files.open_own(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    with (
        open(appended, "ab", buffering=0) as output,
        DaemonContext(
            detach_process=True,
            files_preserve=[says],
            stdout=output,
            stderr=output,
            umask=0o077,
            prevent_core=False,  # it would bind the tasks too
            signal_map={},  # the daemon sets its own
        ),
    ):
        os.write(says, b"%d\n" % os.getpid())
        os.close(says)
        return daemon()


def _started(said: int, notices: socket.socket) -> _Start | None:
    """Read the daemon's pid; None if the daemon is gone already."""
    try:
        pid = int(os.read(said, 100) or 0)
        return _Start(pid, os.pidfd_open(pid), notices) if pid else None
    except ProcessLookupError:
        return None
    finally:
        os.close(said)


def _is_ready(start: _Start | None, mask: Collection[int]) -> bool:
    """Wait for the verdict. Ctrl-C, also one that came before, ends the daemon.

    ``mask``: the signals that were blocked before.
    """
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return start is not None and _wait(start)
    except KeyboardInterrupt:
        if start is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(start.process, signal.SIGTERM)
        raise
    finally:
        if start is not None:
            os.close(start.process)


def _wait(start: _Start) -> bool:
    """True once the daemon is ready, False once it is gone; no deadline, an app may be large.

    ``signalled`` is ready to be read once a signal has come: one that comes just before a poll is
    only noted by Python, and would not be acted on until the poll returns.
    """
    signalled, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    try:
        poll = select.poll()
        for waited_for in (start.notices, start.process, signalled):
            poll.register(waited_for, select.POLLIN)
        while True:
            events = dict(poll.poll())
            if signalled in events:
                os.read(signalled, 4096)  # the signal's handler has run by now
            if start.notices.fileno() in events and _says_ready(start):
                return True
            if start.process in events and start.notices.fileno() not in events:
                return False
    finally:
        signal.set_wakeup_fd(before)
        os.close(signalled)
        os.close(waker)


def _says_ready(start: _Start) -> bool:
    """Only the daemon is believed: any process on the machine may send to such a socket."""
    message, extra, _, _ = start.notices.recvmsg(4096, socket.CMSG_SPACE(_CREDENTIALS.size))
    senders = [
        _CREDENTIALS.unpack(data)[0]
        for level, kind, data in extra
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS)
    ]
    return senders == [start.pid] and b"READY=1" in message.splitlines()


def _died(log: str, size: int) -> int:
    """Print the end of what the daemon wrote, which has the reason."""
    try:
        with open(files.open_own(log, os.O_RDONLY), encoding="utf-8", errors="replace") as file:
            file.seek(size)
            written = file.read().splitlines()
    except OSError:
        written = []
    for line in written[-20:] or [f"taskd: the daemon ended at once; see {log}"]:
        print(text.clean(line), file=sys.stderr)
    return outcome.FAILED
