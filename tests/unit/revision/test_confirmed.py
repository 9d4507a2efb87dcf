"""The file ``confirmed``: read back exactly, whatever the paths; old or new, never half."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from taskd.errors import ConfigError
from taskd.revision import confirmed
from taskd.revision.confirmed import Confirmed

SAMPLE = Confirmed("/srv/app/releases/r42", "/srv/app/releases/r41", "0123456789abcdef", 1.5)

PATHS = st.binary(min_size=1, max_size=60).filter(lambda raw: b"\0" not in raw).map(os.fsdecode)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "confirmed")


def test_nothing_is_confirmed_before_the_first_start(path: str) -> None:
    assert confirmed.read(path) is None


@pytest.mark.parametrize("previous", [None, SAMPLE.previous])
def test_what_is_written_is_read(path: str, previous: str | None) -> None:
    confirmed.write(path, SAMPLE._replace(previous=previous))
    assert confirmed.read(path) == SAMPLE._replace(previous=previous)


@given(release=PATHS, previous=st.none() | PATHS, at=st.floats(0, 1e11))
def test_any_path_that_a_directory_may_have_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, release: str, previous: str | None, at: float
) -> None:
    path = str(tmp_path_factory.getbasetemp() / "confirmed")
    written = SAMPLE._replace(release=release, previous=previous, at=at)
    confirmed.write(path, written)
    assert confirmed.read(path) == written


@pytest.mark.parametrize("odd", ['quote"', "back\\slash", "new\nline", "\x7f", "ünï", "\u2028"])
def test_an_operator_can_read_it_as_json(path: str, odd: str) -> None:
    confirmed.write(path, SAMPLE._replace(release="/srv/" + odd))
    found = json.loads(Path(path).read_text(encoding="utf-8"))
    assert found == SAMPLE._asdict() | {"release": "/srv/" + odd, "accepted": []}


def test_fields_of_a_newer_version_are_ignored(path: str) -> None:
    Path(path).write_text(json.dumps(SAMPLE._asdict() | {"taskd": "9.0"}))
    assert confirmed.read(path) == SAMPLE


def test_a_file_with_the_release_alone_is_enough(path: str) -> None:
    Path(path).write_text('{"release": "/srv/r1"}')
    assert confirmed.read(path) == Confirmed("/srv/r1", None, "", 0)


@pytest.mark.parametrize("wrong", ["", "{", "[]", "7", "null", '"r1"', "{}", '{"release": "/r", '])
def test_a_file_that_makes_no_sense_is_named_with_a_way_out(path: str, wrong: str) -> None:
    Path(path).write_text(wrong)
    with pytest.raises(
        ConfigError, match=r"cannot read .*/confirmed.*taskd confirm --state .* PATH"
    ):
        confirmed.read(path)


def test_a_file_that_cannot_be_read_is_named(path: str) -> None:
    os.mkdir(path)
    with pytest.raises(ConfigError, match="confirmed"):
        confirmed.read(path)


def test_it_is_replaced_in_one_step_and_is_the_owners_alone(path: str) -> None:
    confirmed.write(path, SAMPLE)
    before = os.open(path, os.O_RDONLY)
    try:
        confirmed.write(path, SAMPLE._replace(release="/srv/r43"))
        assert json.loads(os.read(before, 9999))["release"] == SAMPLE.release
    finally:
        os.close(before)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert os.listdir(os.path.dirname(path)) == ["confirmed"]


def test_a_write_that_fails_leaves_the_old_one(path: str) -> None:
    confirmed.write(path, SAMPLE)
    os.mkdir(path + ".new")  # in the way of the temporary file
    with pytest.raises(OSError):
        confirmed.write(path, SAMPLE._replace(release="/srv/r43"))
    assert confirmed.read(path) == SAMPLE
