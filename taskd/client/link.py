"""One connection of the blocking client, made again whenever it is lost.

Used by one thread at a time, with one request at a time. A process that inherited it over a fork
closes its copy of the socket and makes a connection of its own.

What can go wrong: an exception that is not the request's own outcome (Ctrl-C, one of a signal
handler) strikes between any two steps, when a number is taken and its bytes are not queued, or a
message is taken off the connection and not delivered. The session then counts otherwise than the
daemon, and would take an answer for another's. So whatever cuts a request off closes the
connection, and the next request begins a new session.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from taskd.client.address import Address
from taskd.client.session import (
    DEPLOYS,
    Asked,
    Patience,
    Session,
    connection_lost,
    no_answer,
    still_running,
)
from taskd.errors import Busy, Error, NotAllowed, ProtocolError

if TYPE_CHECKING:
    from socket import socket as Socket  # noqa: N812

_CHUNK = 262144

Late = Callable[[Error | None], Exception]
"""What to raise at a deadline; it is told why there is no connection, if there is none."""


class Link:
    """Invariants: ``_sock`` is None, or connected in the process ``_pid``. ``_whole`` is False
    from the begin of a request to its outcome: one that finds it so comes after one that was cut
    off, even if that could not clean up.

    ``_trouble``: a connection was lost and none was tried since.
    """

    def __init__(self, socket: str | None, patience: Patience) -> None:
        self._address = Address(socket)
        self._patience = patience
        self._session = Session()
        self._sock: Socket | None = None
        self._trouble: Error | None = None
        self._pid = os.getpid()
        self._whole = True

    def run(self, asked: Asked, within: float | None) -> dict[str, Any]:
        """The ``ok`` of a request. Raises its refusal, or NoDaemon after ``within`` seconds."""
        deadline = None if within is None else time.monotonic() + within
        limit, log = self._patience.limit, self._address.log
        try:
            self._begin(asked)
            self._until_news(asked, deadline, lambda trouble: trouble or no_answer(limit, log))
            self._whole = True
        except BaseException:
            self.close()
            raise
        if asked.error is not None:
            raise asked.error
        if asked.op in DEPLOYS:  # the next request asks for the version that is spoken now
            self.close()
        return asked.ok or {}

    def stream(self, asked: Asked, deadline: float | None) -> Iterator[dict[str, Any]]:
        """The items of a stream until it ends. Raises TimeoutError at ``deadline``.

        The link is of no further use then.
        """
        self._begin(asked)
        while True:
            self._until_news(asked, deadline, lambda _: still_running(asked.fields["tasks"]))
            while asked.items:
                yield asked.items.popleft()
            if asked.error is not None:
                raise asked.error
            if asked.is_over:
                return

    def close(self) -> None:
        """Close the connection and forget all that was asked; the next request begins anew."""
        self._whole = False
        self._hang_up()
        self._session = Session()
        self._whole = True

    def _begin(self, asked: Asked) -> None:
        if self._pid != os.getpid() or not self._whole:
            self.close()  # after a fork: what other threads of the parent asked is theirs
            self._pid = os.getpid()
        self._whole = False
        self._session.ask(asked)

    def _hang_up(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None
        self._session.lost()

    def _until_news(self, asked: Asked, deadline: float | None, late: Late) -> None:
        while not asked.is_over and not asked.items:
            if self._pid != os.getpid():  # forked while a stream was open: it goes on here anew
                self._hang_up()
                self._pid = os.getpid()
            if self._sock is None:
                self._connect(deadline, late)
            if self._send():
                self._receive(deadline, late)

    def _connect(self, deadline: float | None, late: Late) -> None:
        """One try; a pause before it if a connection was lost, or behind it if it failed."""
        if self._trouble is not None:
            trouble, self._trouble = self._trouble, None
            self._pause(trouble, deadline, late)
        try:
            self._sock = self._address.connect(self._patience.limit)
        except Error as error:
            self._pause(error, deadline, late)
            return
        self._patience.connected()
        self._session.connected()

    def _pause(self, trouble: Error, deadline: float | None, late: Late) -> None:
        """Wait for the next try. Raises ``trouble`` when patience ends, ``late`` when time does."""
        now = time.monotonic()
        pause = self._patience.pause(trouble, now)
        if deadline is not None and now + pause >= deadline:
            time.sleep(max(0.0, deadline - now))
            raise late(trouble)
        time.sleep(pause)

    def _send(self) -> bool:
        """Send what is to be sent; whether there is a connection, still."""
        if self._sock is None:
            return False
        try:
            self._sock.settimeout(self._patience.limit)
            self._sock.sendall(self._session.to_send())
        except (BrokenPipeError, ConnectionResetError):
            return True  # it hung up; perhaps it said why
        except OSError:
            self._lose()
            return False
        return True

    def _receive(self, deadline: float | None, late: Late) -> None:
        assert self._sock is not None
        try:
            self._sock.settimeout(
                None if deadline is None else max(0.0, deadline - time.monotonic())
            )
            data = self._sock.recv(_CHUNK)
        except (TimeoutError, BlockingIOError):
            raise late(None) from None
        except OSError:
            data = b""
        if not data:
            self._lose()
            return
        try:
            if self._session.receive(data):
                self._patience.heard()
        except ProtocolError as error:
            self._session.fail(error)
            self._hang_up()
        except NotAllowed as error:  # this socket is not for our user; another one may be
            if self._address.turned_away():
                self._session.turned_away()
            else:
                self._session.fail(error)
            self._hang_up()
        except Busy as error:
            self._session.turned_away()
            self._lose(error)

    def _lose(self, why: Error | None = None) -> None:
        self._hang_up()
        self._patience.lost()
        self._trouble = why or connection_lost(self._address.log)
