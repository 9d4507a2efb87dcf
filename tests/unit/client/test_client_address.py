"""Which socket a client uses, and what it says when nobody answers there."""

from __future__ import annotations

import errno
import pathlib
import socket
from collections.abc import Iterator

import pytest

from taskd import paths
from taskd.client import address, session
from taskd.errors import NoDaemon
from taskd.posix.sockets import listen


@pytest.fixture
def listeners() -> Iterator[list[socket.socket]]:
    made: list[socket.socket] = []
    yield made
    for sock in made:
        sock.close()


@pytest.fixture(autouse=True)
def own(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> pathlib.Path:
    """The user's runtime directory; not yet there."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.delenv("TASKD_SOCKET", raising=False)
    monkeypatch.setattr(paths, "SYSTEM_RUNTIME_DIR", str(tmp_path / "system"))
    return tmp_path / "run" / "taskd"


def make(own: pathlib.Path) -> None:
    """As the daemon makes it: its mode does not come from the umask."""
    own.mkdir(parents=True)
    own.chmod(0o755)


def test_a_named_socket_goes_before_everything(
    own: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(own)
    monkeypatch.setenv("TASKD_SOCKET", "/of/the/environment")
    assert address.place("/named") == "/named"
    assert address.place(None) == "/of/the/environment"


def test_an_empty_variable_counts_as_none(
    own: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(own)
    monkeypatch.setenv("TASKD_SOCKET", "")
    assert address.place(None) == str(own)


def test_the_users_own_daemon_is_meant_also_when_it_is_down(own: pathlib.Path) -> None:
    assert address.place(None) == paths.SYSTEM_RUNTIME_DIR
    make(own)
    assert address.place(None) == str(own)


def test_a_directory_that_others_may_write_to_is_not_trusted(own: pathlib.Path) -> None:
    make(own)
    own.chmod(0o777)
    assert address.place(None) == paths.SYSTEM_RUNTIME_DIR


def test_in_a_directory_control_is_tried_before_submit(
    tmp_path: pathlib.Path, listeners: list[socket.socket]
) -> None:
    listeners.append(listen(str(tmp_path / "submit.sock")))
    listeners.append(listen(str(tmp_path / "control.sock")))
    with address.Address(str(tmp_path)).connect(5) as sock:
        assert sock.getpeername().startswith(str(tmp_path / "control.sock"))


def test_where_control_does_not_let_us_in_submit_is_used(
    tmp_path: pathlib.Path, listeners: list[socket.socket]
) -> None:
    listeners.append(listen(str(tmp_path / "submit.sock")))
    listen(str(tmp_path / "control.sock")).close()  # the file stays; nobody listens
    with address.Address(str(tmp_path)).connect(5) as sock:
        assert sock.getpeername().startswith(str(tmp_path / "submit.sock"))


def test_a_path_too_long_for_an_address_is_reached(
    tmp_path: pathlib.Path, listeners: list[socket.socket]
) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    listeners.append(listen(str(deep / "control.sock")))
    address.Address(str(deep)).connect(5).close()
    address.Address(str(deep / "control.sock")).connect(5).close()


def test_each_socket_that_was_tried_is_named_with_its_reason(own: pathlib.Path) -> None:
    make(own)
    listen(str(own / "submit.sock")).close()
    with pytest.raises(NoDaemon) as caught:
        address.Address(None).connect(5)
    assert str(caught.value).splitlines() == [
        "no daemon is reachable; tried:",
        f"  {own}/control.sock: does not exist",
        f"  {own}/submit.sock: no process listens on it",
        "Start it with `taskd run`, or name another with --socket or $TASKD_SOCKET.",
    ]


def test_where_the_system_has_no_daemon_it_says_how_to_start_one() -> None:
    with pytest.raises(NoDaemon, match=r"systemctl start taskd.*taskd run"):
        address.Address(None).connect(5)


@pytest.mark.parametrize(
    ("where", "unit"),
    [
        ("/run/taskd-shop", "taskd@shop"),
        ("/run/taskd-shop/control.sock", "taskd@shop"),
        ("/run/taskd-a-b/submit.sock", "taskd@a-b"),
        ("/run/taskd", "taskd"),
        ("/run/taskd/control.sock", "taskd"),
        ("/run/taskd-shop/deeper", None),
        ("/run/taskdown", None),
        ("/srv/run/taskd-shop", None),
    ],
)
def test_messages_name_the_unit_that_the_socket_belongs_to(where: str, unit: str | None) -> None:
    where = where.replace("/run/taskd", paths.SYSTEM_RUNTIME_DIR)
    log = address.Address(where).log
    assert log == (f"`journalctl -u {unit}`" if unit else "its log")
    with pytest.raises(NoDaemon) as told:
        address.Address(where).connect(5)
    assert (f"`systemctl start {unit}`" in str(told.value)) == (unit is not None)
    assert log in str(session.connection_lost(log)) and log in str(session.no_answer(1, log))


def test_a_file_that_is_no_socket_is_said_to_be_none(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NoDaemon, match="file: is not a socket"):
        address.Address(str(tmp_path / "file")).connect(5)


def test_a_socket_that_does_not_let_us_in_says_whom_to_ask(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str, timeout: float | None) -> socket.socket:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(address, "connect_socket", refuse)
    with pytest.raises(NoDaemon, match=r"you may not connect to it\n.*submit_groups"):
        address.Address(str(tmp_path / "control.sock")).connect(5)


def test_a_submit_socket_that_is_stopped_is_not_said_to_keep_us_out(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str, timeout: float | None) -> socket.socket:
        if path.endswith("submit.sock"):
            raise FileNotFoundError(errno.ENOENT, "No such file or directory")
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(address, "connect_socket", refuse)
    with pytest.raises(NoDaemon, match=r"does not exist\n(.*\n)*Start it") as told:
        address.Address(str(tmp_path)).connect(5)
    assert "submit_groups" not in str(told.value)
