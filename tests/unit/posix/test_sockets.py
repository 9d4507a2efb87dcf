"""Unix sockets: never met half made, reached however long their path is, and who is there."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from descriptors import descriptors
from forked import in_child
from support.waiting import eventually

from taskd.posix import sockets


@contextlib.contextmanager
def connection(path: str) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A listening socket at ``path``, and both ends of a connection to it."""
    with sockets.listen(path) as listener, sockets.connect(path, 5) as ours:
        theirs, _ = listener.accept()
        with theirs:
            yield ours, theirs


def test_bytes_go_both_ways(tmp_path: Path) -> None:
    with connection(str(tmp_path / "s.sock")) as (ours, theirs):
        ours.sendall(b"there")
        assert theirs.recv(9) == b"there"
        theirs.sendall(b"back")
        assert ours.recv(9) == b"back"


@pytest.mark.parametrize("length", [107, 108, 109, 400])
def test_a_path_of_any_length_is_reached(tmp_path: Path, length: int) -> None:
    folder = tmp_path
    while length - len(os.fsencode(folder)) > 90:
        folder /= "d" * 45
    folder.mkdir(parents=True, exist_ok=True)
    name = "n" * (length - len(os.fsencode(folder)) - 1)
    path = str(folder / name)
    assert len(path) == length
    with connection(path) as (ours, theirs):
        ours.sendall(b"x")
        assert theirs.recv(1) == b"x"
    assert os.listdir(folder) == [name]


def test_a_name_without_a_directory_is_in_the_current_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with connection("s.sock"):
        assert stat.S_ISSOCK(os.stat("s.sock").st_mode)


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_the_mode_is_as_asked_whatever_the_umask(tmp_path: Path, mode: int) -> None:
    before = os.umask(0o077)
    try:
        with sockets.listen(str(tmp_path / "s.sock"), mode):
            assert stat.S_IMODE(os.stat(tmp_path / "s.sock").st_mode) == mode
        assert os.umask(0o077) == 0o077, "the umask is as it was"
    finally:
        os.umask(before)


def test_nobody_else_may_connect_at_any_moment_of_its_making(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is bound it is the owner's alone; under its name it has its mode and listens."""
    seen: list[int] = []
    chmod, rename = os.chmod, os.rename

    def look_and_chmod(path: str, mode: int) -> None:
        seen.append(stat.S_IMODE(os.stat(path).st_mode))
        chmod(path, mode)

    def connect_and_rename(made: str, path: str) -> None:
        sockets.connect(made, 5).close()
        seen.append(stat.S_IMODE(os.stat(made).st_mode))
        assert not os.path.exists(path)
        rename(made, path)

    monkeypatch.setattr(os, "chmod", look_and_chmod)
    monkeypatch.setattr(os, "rename", connect_and_rename)
    before = os.umask(0)
    try:
        sockets.listen(str(tmp_path / "s.sock"), 0o666).close()
    finally:
        os.umask(before)
    assert seen == [0o600, 0o666]


def test_the_socket_of_a_daemon_that_died_is_replaced(tmp_path: Path) -> None:
    path = str(tmp_path / "s.sock")
    sockets.listen(path).close()
    with pytest.raises(ConnectionRefusedError):
        sockets.connect(path)
    with connection(path):
        assert os.listdir(tmp_path) == ["s.sock"]


def test_what_a_start_left_half_made_does_not_stop_the_next_one(tmp_path: Path) -> None:
    """In a container every start may have the same pid, and so the same temporary name."""
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(tmp_path / f"s.sock.{os.getpid()}.new"))
    with connection(str(tmp_path / "s.sock")):
        assert os.listdir(tmp_path) == ["s.sock"]


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "s.sock").mkdir()
    with pytest.raises(IsADirectoryError):
        sockets.listen(str(tmp_path / "s.sock"))
    assert os.listdir(tmp_path) == ["s.sock"]


def test_no_socket_there_is_an_error_that_leaks_nothing(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    before = descriptors()
    for folder in (tmp_path, deep):
        with pytest.raises(FileNotFoundError):
            sockets.connect(str(folder / "missing"))
    assert descriptors() == before


def test_a_socket_is_not_for_children(tmp_path: Path) -> None:
    with connection(str(tmp_path / "s.sock")) as (ours, theirs):
        assert not os.get_inheritable(ours.fileno())
        assert not os.get_inheritable(theirs.fileno())


def test_the_peers_pid_and_user_are_the_kernels_word(tmp_path: Path) -> None:
    path = str(tmp_path / "s.sock")
    with sockets.listen(path) as listener:
        listener.setblocking(True)
        child = os.fork()
        if child == 0:
            sockets.connect(path)
            os._exit(0)
        theirs, _ = listener.accept()
        with theirs:
            assert sockets.peer(theirs) == (child, os.getuid(), os.getgid())
        os.waitpid(child, 0)


@pytest.mark.skipif(os.getuid() != 0, reason="only root may choose its groups")
@pytest.mark.parametrize("count", [0, 1, 3, 1000])
def test_the_peers_groups_are_the_kernels_word(tmp_path: Path, count: int) -> None:
    path = str(tmp_path / "s.sock")
    groups = list(range(50_000, 50_000 + count))

    def under_test() -> list[int]:
        os.setgroups(groups)
        with connection(path) as (_, theirs):
            return sorted(sockets.peer_groups(theirs))

    assert in_child(under_test) == groups


def test_groups_of_what_is_no_unix_socket_are_an_error() -> None:
    with socket.socket(socket.AF_INET) as sock, pytest.raises(OSError) as error:
        sockets.peer_groups(sock)
    assert error.value.errno in (errno.ENOPROTOOPT, errno.ENODATA)


def sleeps_in_connect(thread: threading.Thread) -> bool:
    with open(f"/proc/self/task/{thread.native_id}/wchan", encoding="ascii") as file:
        return "unix" in file.read()


def test_a_connection_waits_while_too_many_others_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "_BACKLOG", 0)
    path = str(tmp_path / "s")
    with sockets.listen(path) as listener, sockets.connect(path):
        with pytest.raises(BlockingIOError):
            sockets.connect(path, timeout=0.01)
        made: list[socket.socket] = []
        waiting = threading.Thread(target=lambda: made.append(sockets.connect(path, timeout=30)))
        waiting.start()
        eventually(lambda: not waiting.is_alive() or sleeps_in_connect(waiting), "it connects")
        accepted = []
        while waiting.is_alive():
            with contextlib.suppress(BlockingIOError):
                accepted.append(listener.accept()[0])
            waiting.join(0.01)
        assert made[0].gettimeout() == 30
        for each in (*made, *accepted):
            each.close()
