"""What of a release can be imported: whether it is the same, and which files are not."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from taskd.revision.content import NAMED, Content


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """A small release."""
    root = tmp_path / "r1"
    (root / "app").mkdir(parents=True)
    (root / "app" / "tasks.py").write_text("x = 1\n")
    (root / "more.py").write_text("data\n")
    (root / "app.log").write_text("data\n")
    (root / "link").symlink_to("app")
    return root


def touch(path: Path, seconds: int) -> None:
    os.utime(path, (seconds, seconds))


CHANGES: dict[str, Callable[[Path], object]] = {
    "a new file": lambda root: (root / "new.py").write_text(""),
    "a file gone": lambda root: (root / "more.py").unlink(),
    "another size": lambda root: (root / "more.py").write_text("more data\n"),
    "another time": lambda root: touch(root / "more.py", 1_000_000),
    "another name": lambda root: (root / "more.py").rename(root / "mode.py"),
    "another place": lambda root: (root / "more.py").rename(root / "app" / "more.py"),
    "another link": lambda root: ((root / "link").unlink(), (root / "link").symlink_to(".")),
    "another environment": lambda root: (root / "pyvenv.cfg").touch(),
    "an extension": lambda root: (root / "app" / "fast.so").touch(),
    "a module without its source": lambda root: (root / "app" / "old.pyc").write_bytes(b"code"),
    "a link to nowhere": lambda root: (root / "broken").symlink_to("nowhere"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_its_files_is_noticed(app: Path, change: str) -> None:
    before = Content(str(app)).fingerprint
    CHANGES[change](app)
    assert Content(str(app)).fingerprint != before


NO_CHANGES: dict[str, Callable[[Path], object]] = {
    "nothing": lambda root: None,
    "compiled files": lambda root: (
        (root / "app" / "__pycache__").mkdir(),
        (root / "app" / "__pycache__" / "tasks.cpython-311.pyc").write_bytes(b"code"),
        (root / "app" / "tasks.pyc").write_bytes(b"code"),
        (root / "cache").mkdir(),
        (root / "cache" / "tasks.cpython-311.pyc").write_bytes(b"code"),
    ),
    "version control": lambda root: ((root / ".git").mkdir(), (root / ".git" / "HEAD").touch()),
    "a log": lambda root: (root / "app.log").write_text("more\n"),
    "a database": lambda root: (root / "app" / "app.sqlite").touch(),
    "a link to a log": lambda root: (root / "latest").symlink_to("app.log"),
    "reading it": lambda root: (root / "more.py").read_text(),
}


@pytest.mark.parametrize("change", NO_CHANGES)
def test_running_a_release_does_not_make_it_another_one(app: Path, change: str) -> None:
    before = Content(str(app)).fingerprint
    NO_CHANGES[change](app)
    assert Content(str(app)).fingerprint == before


def test_what_has_changed_is_named(app: Path) -> None:
    before = Content(str(app))
    assert before.changed(Content(str(app))) == []
    (app / "app" / "tasks.py").write_text("x = 12\n")
    (app / "more.py").unlink()
    (app / "new.py").touch()
    (app / "app.log").unlink()
    Path(os.fsdecode(os.fsencode(app) + b"/odd\n\xff.py")).touch()
    named = before.changed(Content(str(app)))
    assert named == ["app/tasks.py", "more.py", "new.py", "odd\\n\\udcff.py"]


def test_no_more_are_named_than_one_can_read(app: Path) -> None:
    before = Content(str(app))
    for number in range(3 * NAMED):
        (app / f"new{number:02}.py").touch()
    assert before.changed(Content(str(app))) == [f"new{n:02}.py" for n in range(NAMED)]


def test_what_a_link_points_to_outside_is_not_walked(app: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (app / "shared").symlink_to(tmp_path / "outside")
    before = Content(str(app)).fingerprint
    (tmp_path / "outside" / "log").write_text("grows")
    assert Content(str(app)).fingerprint == before


def test_a_circle_of_links_does_not_hang_it(app: Path) -> None:
    (app / "self").symlink_to(".")
    assert len(Content(str(app)).fingerprint) == 16


def test_a_pipe_does_not_hang_it(app: Path) -> None:
    os.mkfifo(app / "pipe.py")
    assert len(Content(str(app)).fingerprint) == 16


def test_directories_may_be_nested_deeper_than_calls_can_be(app: Path) -> None:
    before = Content(str(app)).fingerprint
    deepest = os.open(app, os.O_RDONLY)
    for _ in range(sys.getrecursionlimit() + 100):
        os.mkdir("d", dir_fd=deepest)
        inner = os.open("d", os.O_RDONLY, dir_fd=deepest)
        os.close(deepest)
        deepest = inner
    try:
        assert Content(str(app)).fingerprint == before
        os.close(os.open("late.py", os.O_CREAT, dir_fd=deepest))
        assert Content(str(app)).fingerprint != before
    finally:
        os.close(deepest)
        subprocess.run(["rm", "-r", app / "d"], check=True)  # pytest would fail to, later


def test_what_goes_while_it_is_looked_at_was_not_there(app: Path) -> None:
    """Files and directories that an app makes for a moment, until one has met a walk."""
    before = Content(str(app)).fingerprint
    done = threading.Event()

    def make_and_remove() -> None:
        while not done.is_set():
            Path(tempfile.mkdtemp(dir=app)).rmdir()

    with ThreadPoolExecutor(1) as threads:
        threads.submit(make_and_remove)
        try:
            assert {Content(str(app)).fingerprint for _ in range(1000)} == {before}
        finally:
            done.set()


def test_a_name_that_is_no_text_is_a_name_all_the_same(app: Path) -> None:
    before = Content(str(app)).fingerprint
    Path(os.fsdecode(os.fsencode(app) + b"/\xff.py")).touch()
    assert Content(str(app)).fingerprint != before


def test_the_same_files_elsewhere_have_the_same_fingerprint(app: Path) -> None:
    before = Content(str(app)).fingerprint
    moved = app.rename(app.parent / "r2")
    assert Content(str(moved)).fingerprint == before
