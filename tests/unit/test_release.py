"""A release: its real path, its Python, and whether its files are the same."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
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
    (root / "link").symlink_to("data.txt")
    return root


def touch(path: Path, seconds: int) -> None:
    os.utime(path, (seconds, seconds))


CHANGES: dict[str, Callable[[Path], object]] = {
    "a new file": lambda root: (root / "new.py").write_text(""),
    "a file gone": lambda root: (root / "data.txt").unlink(),
    "another size": lambda root: (root / "data.txt").write_text("more data\n"),
    "another time": lambda root: touch(root / "data.txt", 1_000_000),
    "another name": lambda root: (root / "data.txt").rename(root / "date.txt"),
    "another place": lambda root: (root / "data.txt").rename(root / "app" / "data.txt"),
    "another link": lambda root: ((root / "link").unlink(), (root / "link").symlink_to("app")),
    "a link to nowhere": lambda root: (root / "broken").symlink_to("nowhere"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_its_files_is_noticed(app: Path, change: str) -> None:
    before = release.fingerprint(str(app))
    CHANGES[change](app)
    assert release.fingerprint(str(app)) != before


NO_CHANGES: dict[str, Callable[[Path], object]] = {
    "nothing": lambda root: None,
    "compiled files": lambda root: (
        (root / "app" / "__pycache__").mkdir(),
        (root / "app" / "__pycache__" / "tasks.cpython-311.pyc").write_bytes(b"code"),
        (root / "app" / "old.pyc").write_bytes(b"code"),
    ),
    "version control": lambda root: ((root / ".git").mkdir(), (root / ".git" / "HEAD").touch()),
    "reading it": lambda root: (root / "data.txt").read_text(),
}


@pytest.mark.parametrize("change", NO_CHANGES)
def test_running_a_release_does_not_make_it_another_one(app: Path, change: str) -> None:
    before = release.fingerprint(str(app))
    NO_CHANGES[change](app)
    assert release.fingerprint(str(app)) == before


def test_what_a_link_points_to_outside_is_not_walked(app: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (app / "shared").symlink_to(tmp_path / "outside")
    before = release.fingerprint(str(app))
    (tmp_path / "outside" / "log").write_text("grows")
    assert release.fingerprint(str(app)) == before


def test_a_circle_of_links_does_not_hang_it(app: Path) -> None:
    (app / "self").symlink_to(".")
    assert len(release.fingerprint(str(app))) == 16


def test_a_name_that_is_no_text_is_a_name_all_the_same(app: Path) -> None:
    before = release.fingerprint(str(app))
    Path(os.fsdecode(os.fsencode(app) + b"/\xff")).touch()
    assert release.fingerprint(str(app)) != before


def test_the_same_files_elsewhere_have_the_same_fingerprint(app: Path) -> None:
    before = release.fingerprint(str(app))
    moved = app.rename(app.parent / "r2")
    assert release.fingerprint(str(moved)) == before


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
