"""Where the files are, for a service, for root and for a user, and what is not trusted."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from taskd import paths
from taskd.errors import ConfigError

USER = 4321  # no such user: nothing may fall back on the user database unnoticed


def mode(path: str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def under(base: Path) -> paths.Places:
    return paths.Places(str(base / "state"), str(base / "run" / "t"), str(base / "logs"))


def test_the_service_manager_decides_and_the_first_of_its_entries_counts() -> None:
    environ = {
        "STATE_DIRECTORY": "/s/one:/s/two",
        "RUNTIME_DIRECTORY": "/r/one",
        "LOGS_DIRECTORY": "/l/one:/l/two",
    }
    for uid in (0, USER):
        assert paths.places(environ, uid) == ("/s/one", "/r/one", "/l/one")


def test_root_without_a_service_manager_uses_the_systems_places() -> None:
    found = paths.places({"XDG_RUNTIME_DIR": "/run/user/0", "HOME": "/root"}, 0)
    assert found == ("/var/lib/taskd", "/run/taskd", "/var/log/taskd")


def test_a_user_has_them_by_the_xdg_rules() -> None:
    environ = {"HOME": "/home/u", "XDG_RUNTIME_DIR": "/run/user/4321"}
    assert paths.places(environ, USER) == (
        "/home/u/.local/state/taskd",
        "/run/user/4321/taskd",
        "/home/u/.local/state/taskd/logs",
    )
    assert paths.places(environ | {"XDG_STATE_HOME": "/x"}, USER).logs == "/x/taskd/logs"


def test_a_relative_xdg_path_is_ignored() -> None:
    environ = {"HOME": "/home/u", "XDG_RUNTIME_DIR": "run", "XDG_STATE_HOME": "state"}
    found = paths.places(environ, USER)
    assert found.runtime == "/tmp/taskd-4321"
    assert found.state == "/home/u/.local/state/taskd"


def test_a_user_without_any_home_is_told_what_to_set() -> None:
    with pytest.raises(ConfigError, match="user 4321 has no home directory: set HOME"):
        paths.places({"XDG_RUNTIME_DIR": "/run/user/4321"}, USER)


def test_clients_and_daemon_of_one_user_agree_on_the_runtime_directory() -> None:
    for environ in ({"HOME": "/h"}, {"HOME": "/h", "XDG_RUNTIME_DIR": "/run/user/4321"}):
        assert paths.user_runtime_dir(environ, USER) == paths.places(environ, USER).runtime


def test_what_is_missing_is_made_private_but_for_the_sockets_directory(tmp_path: Path) -> None:
    where = under(tmp_path)
    before = os.umask(0o077)
    try:
        paths.ensure(where)
    finally:
        os.umask(before)
    assert mode(where.runtime) == 0o755
    assert {mode(p) for p in (where.state, where.logs, where.slots, where.scratch)} == {0o700}


def test_a_directory_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    where = under(tmp_path)
    Path(where.state).mkdir(mode=0o750)
    Path(where.state).chmod(0o750)
    paths.ensure(where)
    paths.ensure(where)
    assert mode(where.state) == 0o750


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    where = under(tmp_path)
    Path(where.state).write_text("")
    with pytest.raises(ConfigError, match="state is not a directory: move it out of the way"):
        paths.ensure(where)


def test_a_directory_that_cannot_be_made_is_named_with_the_reason() -> None:
    where = paths.Places("/proc/taskd/state", "/proc/taskd/run", "/proc/taskd/logs")
    with pytest.raises(ConfigError, match="cannot create the directory /proc/taskd/run: "):
        paths.ensure(where)


@pytest.fixture
def private(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> paths.Places:
    """Directories whose runtime one plays the part of the private one under /tmp."""
    where = under(tmp_path)
    Path(where.runtime).parent.mkdir()
    monkeypatch.setattr(paths, "_private_runtime_dir", lambda uid: where.runtime)
    return where


def test_the_private_runtime_directory_is_closed_to_others(private: paths.Places) -> None:
    paths.ensure(private)
    assert mode(private.runtime) == 0o700


def test_a_private_runtime_directory_that_others_may_enter_is_refused(
    private: paths.Places,
) -> None:
    Path(private.runtime).mkdir()
    Path(private.runtime).chmod(0o755)
    with pytest.raises(ConfigError, match=r"not a private directory .* set XDG_RUNTIME_DIR"):
        paths.ensure(private)


def test_a_private_runtime_directory_of_another_user_is_refused(
    private: paths.Places,
) -> None:
    Path(private.runtime).mkdir(mode=0o700)
    with pytest.raises(ConfigError, match="not a private directory of user 4321"):
        paths._check_private(private.runtime, USER)


def test_a_link_in_place_of_the_private_runtime_directory_is_refused(
    private: paths.Places, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    Path(private.runtime).symlink_to(elsewhere)
    with pytest.raises(ConfigError, match="not a private directory"):
        paths.ensure(private)


def test_a_client_trusts_only_a_real_directory_that_no_other_user_can_write_to(
    tmp_path: Path,
) -> None:
    own, me = tmp_path / "own", os.getuid()
    assert not paths.is_own(str(own), me)
    own.mkdir(mode=0o700)
    assert paths.is_own(str(own), me)
    own.chmod(0o777)
    assert not paths.is_own(str(own), me)
    own.chmod(0o700)
    (tmp_path / "link").symlink_to(own)
    assert not paths.is_own(str(tmp_path / "link"), me)


def test_a_directory_of_another_user_is_not_trusted(tmp_path: Path) -> None:
    if os.getuid() == 0:
        os.chown(tmp_path, USER, -1)
        assert not paths.is_own(str(tmp_path), USER + 1)
    else:
        assert not paths.is_own(str(tmp_path), os.getuid() + 1)
