"""A daemon under a service manager that only listens: what it is told, by the real protocol."""

from __future__ import annotations

import socket
import subprocess
from typing import Any

from support.daemon import Daemon


class Managed(Daemon):
    """``watchdog``: seconds within which it is to say that it lives, or None.

    The listener is a datagram socket of systemd's kind, which keeps what it is told.
    """

    def __init__(self, watchdog: float | None = None, **sections: Any) -> None:
        super().__init__(**sections)
        self.watchdog = watchdog
        self.told: list[str] = []
        self._heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._heard.bind(self.path("notify"))
        self.extra["NOTIFY_SOCKET"] = self.path("notify")

    def spawn(self, *arguments: str) -> subprocess.Popen[bytes]:
        if self.watchdog is not None:
            self.extra["WATCHDOG_USEC"] = str(int(self.watchdog * 1e6))
        return super().spawn(*arguments)

    def hear(self) -> list[str]:
        """All the lines that have come so far, in their order."""
        while True:
            try:
                self.told += self._heard.recv(65536).decode().split("\n")
            except BlockingIOError:
                return self.told

    def _answers(self) -> bool:
        self.hear()  # it waits until it is heard saying READY
        return super()._answers()

    def forget(self) -> None:
        """What came until now does not count."""
        self.hear()
        self.told.clear()

    def status(self) -> str:
        """The last STATUS; empty if there was none."""
        found = [line.removeprefix("STATUS=") for line in self.hear() if line.startswith("STATUS=")]
        return found[-1] if found else ""

    def clean_up(self) -> None:
        super().clean_up()
        self._heard.close()
