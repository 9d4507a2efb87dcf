"""A release: its real path and its Python."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from taskd.errors import DeployRefused
from taskd.revision import release


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """A small release."""
    root = tmp_path / "r1"
    (root / "app").mkdir(parents=True)
    (root / "app" / "tasks.py").write_text("x = 1\n")
    (root / "data.txt").write_text("data\n")
    return root


def test_a_link_is_resolved_to_what_it_points_to(app: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to("r1")
    assert release.resolve(str(tmp_path / "current")) == str(app.resolve())


def test_a_link_to_nothing_is_refused_naming_both_ends(tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to("r9")
    with pytest.raises(DeployRefused, match=r"current \(which points to .*/r9\)"):
        release.resolve(str(tmp_path / "current"))


def test_a_file_is_no_release(app: Path) -> None:
    with pytest.raises(DeployRefused, match=r"no release directory at .*data\.txt$"):
        release.resolve(str(app / "data.txt"))


def test_a_path_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """It could not be passed on to the zygote, nor written down."""
    path = os.fsdecode(os.fsencode(tmp_path) + b"/r\xff")
    Path(path).mkdir()
    with pytest.raises(DeployRefused, match="UTF-8"):
        release.resolve(path)


def program(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(sys.executable)
    return str(path)


def test_its_own_environment_goes_before_the_daemons_python(app: Path) -> None:
    assert release.interpreter(str(app), None) == sys.executable
    own = program(app / ".venv" / "bin" / "python")
    assert release.interpreter(str(app), None) == own


def test_a_configured_python_is_in_the_release_or_absolute(app: Path, tmp_path: Path) -> None:
    inside, outside = program(app / "env" / "python"), program(tmp_path / "python3")
    assert release.interpreter(str(app), "env/python") == inside
    assert release.interpreter(str(app), outside) == outside


@pytest.mark.parametrize("wrong", ["missing/python", "data.txt", "app", "/nowhere/python"])
def test_a_configured_python_that_cannot_be_run_is_refused(app: Path, wrong: str) -> None:
    with pytest.raises(DeployRefused, match=r"\[app\] python = '" + wrong):
        release.interpreter(str(app), wrong)
