"""What the client processes of a storm share: how they run, end, and lose their connections.

They are real clients: processes of their own, on the public client. SIGUSR1 cuts every connection
that they have at whatever it is doing just then, and SIGTERM has them finish what they ask. Either
may come while one still starts: it is started with both blocked, and lets them through once it has
its handlers.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from types import FrameType

from contrib.storm.place import plain_environment

SIGNALS = (signal.SIGUSR1, signal.SIGTERM)

ended = threading.Event()
"""Set once the process is to end."""


def begin() -> None:
    """To be called first, in the main thread, which then only waits (the handlers run there)."""
    signal.signal(signal.SIGUSR1, _cut_connections)
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def spawn(module: str, *words: str) -> subprocess.Popen[bytes]:
    """Start one as a child."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        return subprocess.Popen(
            [sys.executable, "-m", f"contrib.storm.{module}", *words],
            env=plain_environment(),
            cwd=os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))),
            stdin=subprocess.DEVNULL,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _cut_connections(_number: int, _frame: FrameType | None) -> None:
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                with socket.socket(fileno=os.dup(int(name))) as ours:
                    ours.shutdown(socket.SHUT_RDWR)
        except OSError:
            continue  # closed meanwhile, or not connected yet
