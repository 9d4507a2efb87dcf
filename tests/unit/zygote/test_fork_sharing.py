"""What the app has opened at import is told where its workers would share it."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path

from forked import in_child

from taskd.posix import descriptors
from taskd.zygote import fork_sharing


def warned(open_it: Callable[[], object]) -> list[str]:
    """What is said once ``open_it`` (which returns what it has opened) was part of an import."""

    def under_test() -> list[str]:
        before = descriptors.opened()
        kept = open_it()
        found = fork_sharing.opened_since(before).warnings()
        del kept
        return found

    return in_child(under_test)


def test_connections_are_told_with_whom_they_are(tmp_path: Path) -> None:
    path = str(tmp_path / "sock")
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as local:
        local.bind(path)
        local.listen()
        port = server.getsockname()[1]

        def opens() -> list[socket.socket]:
            unix = socket.socket(socket.AF_UNIX)
            unix.connect(path)
            address = ("127.0.0.1", port)
            return [unix, socket.create_connection(address), socket.create_connection(address)]

        (why,) = warned(opens)
    assert f"opens connections at import ({path}, 127.0.0.1:{port}), which its workers sh" in why
    assert 'fork = "never"' in why


def test_a_database_is_told_with_its_file(tmp_path: Path) -> None:
    path = str(tmp_path / "base")

    def opens() -> sqlite3.Connection:
        base = sqlite3.connect(path)
        base.execute("create table t (x)")
        return base

    (why,) = warned(opens)
    assert f"at import to read and write ({path}), which its workers share" in why


def test_an_event_loop_is_told() -> None:
    (why,) = warned(asyncio.new_event_loop)
    assert "makes an event loop at import" in why
    assert len(warned(select.epoll)) == 1


def test_what_workers_may_share_is_not_told(tmp_path: Path) -> None:
    def opens() -> list[object]:
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        datagrams.connect(("127.0.0.1", 9))
        return [
            open(tmp_path / "log", "a"),
            open(__file__),
            open(os.devnull, "r+"),
            datagrams,
            socket.create_server(("127.0.0.1", 0)),
            socket.socketpair(),
            os.pipe(),
        ]

    assert warned(opens) == []


def test_of_many_some_are_named(tmp_path: Path) -> None:
    (why,) = warned(lambda: [tempfile.mkstemp(dir=tmp_path) for _ in range(7)])
    assert "and 2 more)" in why


def test_a_number_that_was_closed_and_is_open_again_is_told(tmp_path: Path) -> None:
    old = os.open(os.devnull, os.O_RDONLY)
    path = str(tmp_path / "base")

    def opens() -> int:
        os.close(old)
        return os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), old)

    (why,) = warned(opens)
    os.close(old)
    assert f"at import to read and write ({path}), which its workers share" in why
