"""What a release was proved with: one file for each such settings, in place before it is named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from taskd.config import App, Config
from taskd.errors import ConfigError
from taskd.revision import confirmed, proved
from taskd.revision.confirmed import Confirmed

TABLE = {"app": {"release": "/srv/app/current", "modules": ["app"], "tasks_per_worker": 3}}
FILE = Config.from_table(TABLE, "t").app


def app(**environment: str) -> App:
    return FILE._replace(environment=environment)


def written(directory: Path, made: App, *keep: str) -> str:
    found = proved.of("/srv/app/r1", made)
    proved.write(str(directory), found, keep)
    return found.name


def test_what_is_written_is_read_as_it_was_and_is_the_daemons_alone(tmp_path: Path) -> None:
    directory = tmp_path / "proved"
    name = written(directory, app(A='"ü\n\\', B=""))
    assert proved.read(str(directory), name) == app(A='"ü\n\\', B="").proved()
    assert (directory / name).stat().st_mode & 0o777 == 0o600
    assert directory.stat().st_mode & 0o777 == 0o700


def test_the_daemons_own_keys_are_those_of_the_file(tmp_path: Path) -> None:
    name = written(tmp_path, app(A="1")._replace(fork="never", tasks_per_worker=7))
    found = FILE.with_proved(proved.read(str(tmp_path), name))
    assert found == FILE._replace(fork="never", environment={"A": "1"})


def test_the_same_again_has_the_same_name_and_another_has_another(tmp_path: Path) -> None:
    first = written(tmp_path, app(A="1"))
    before = (tmp_path / first).stat().st_ino
    assert written(tmp_path, app(A="1")._replace(max_revisions=3)) == first
    assert (tmp_path / first).stat().st_ino == before, "nothing is written for nothing"
    assert written(tmp_path, app(A="2"), first) != first


def test_files_that_nothing_names_are_removed_with_the_next_write(tmp_path: Path) -> None:
    names = [written(tmp_path, app(A=str(n)), *os.listdir(tmp_path)) for n in range(4)]
    (tmp_path / "left.new").write_bytes(b"")
    written(tmp_path, app(A="3"), names[0], names[1])
    assert set(os.listdir(tmp_path)) == {names[0], names[1], names[3]}


def test_a_file_that_was_damaged_is_written_anew(tmp_path: Path) -> None:
    name = written(tmp_path, app(A="1"))
    (tmp_path / name).write_bytes(b"{")
    with pytest.raises(ConfigError, match="which has what the release was proved with"):
        proved.read(str(tmp_path), name)
    assert written(tmp_path, app(A="1")) == name
    assert proved.read(str(tmp_path), name).environment == {"A": "1"}


def test_what_another_version_wrote_is_read(tmp_path: Path) -> None:
    (tmp_path / "x").write_text('{"new": 1, "app": {"new": 1, "release": "", "modules": ["m"], '
                                '"python": null, "fork": "never", "tasks_per_worker": 1, '
                                '"max_revisions": 1}}')  # fmt: skip
    found = proved.read(str(tmp_path), "x")
    assert (found.modules, found.fork, found.environment) == (["m"], "never", None)


def test_a_name_leads_nowhere_else(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        proved.read(str(tmp_path), "../../etc/passwd")


# ── the order of what was confirmed ──────────────────────────────────────────────────────────


def now(release: str, settings: str = "") -> Confirmed:
    return Confirmed(release, None, "", 1.0, (), settings)


def test_the_same_release_with_other_settings_is_what_a_rollback_goes_back_to() -> None:
    first = now("r1", "a")
    second = now("r2", "b").after(first)
    assert (second.previous, second.previous_settings) == ("r1", "a")
    again = now("r2", "b").after(second)
    assert (again.previous, again.previous_settings) == ("r1", "a"), "nothing new came"
    other = now("r2", "c").after(again)
    assert (other.previous, other.previous_settings) == ("r2", "b")
    back = now("r2", "b").after(other)
    assert (back.previous, back.previous_settings) == ("r2", "c")


def test_where_settings_are_not_known_the_release_alone_counts() -> None:
    old = Confirmed("r2", "r1", "", 1.0)
    for found in (now("r2", "b").after(old), now("r2").after(now("r2", "b").after(old))):
        assert (found.previous, found.previous_settings) == ("r1", "")
    assert now("r1").after(None).previous is None


def test_confirmed_keeps_both_names(tmp_path: Path) -> None:
    path = str(tmp_path / "confirmed")
    wanted = now("r2", "b").after(now("r1", "a"))
    confirmed.write(path, wanted)
    assert confirmed.read(path) == wanted
