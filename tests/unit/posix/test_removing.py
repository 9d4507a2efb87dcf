"""Trees that tasks leave: removed without following links, however they are made."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import users

from taskd.posix import removing


def remove(path: Path) -> int:
    return len(list(removing.steps(os.fspath(path))))


def test_where_nothing_is_nothing_is_removed(tmp_path: Path) -> None:
    assert remove(tmp_path / "gone") == 0


def test_a_file_and_a_link_are_removed_and_not_what_the_link_leads_to(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("kept")
    for name in ("directory", "file"):
        (tmp_path / "link").symlink_to(kept if name == "directory" else kept / "file")
        remove(tmp_path / "link")
    (tmp_path / "file").write_text("x")
    remove(tmp_path / "file")
    assert [each.name for each in tmp_path.iterdir()] == ["kept"]
    assert (kept / "file").read_text() == "kept"


def test_no_link_within_is_followed(tmp_path: Path) -> None:
    kept, tree = tmp_path / "kept", tmp_path / "tree"
    (kept / "inner").mkdir(parents=True)
    (kept / "inner" / "file").write_text("kept")
    (tree / "sub" / "subsub").mkdir(parents=True)
    for where in (tree, tree / "sub", tree / "sub" / "subsub"):
        (where / "out").symlink_to(kept)
        (where / "up").symlink_to("..")
        os.link(kept / "inner" / "file", where / "hard")
    remove(tree)
    assert not tree.exists()
    assert (kept / "inner" / "file").read_text() == "kept"


def test_a_directory_that_becomes_a_link_meanwhile_is_not_followed(tmp_path: Path) -> None:
    """A process that the task has hidden somewhere trades a directory for a link."""
    kept, tree = tmp_path / "kept", tmp_path / "tree"
    (kept / "deep").mkdir(parents=True)
    (kept / "deep" / "file").write_text("kept")
    for name in ("a", "b", "c"):
        (tree / name / "deep").mkdir(parents=True)
    steps = removing.steps(os.fspath(tree))
    next(steps)
    left = [each for each in tree.iterdir() if each.name in "abc"]
    assert left
    for each in left:
        os.rename(each, tmp_path / f"away-{each.name}")
        each.symlink_to(kept)
    with pytest.raises(OSError):  # what it had seen is no directory any more
        while True:
            next(steps)
    remove(tree)
    assert not tree.exists()
    assert (kept / "deep" / "file").read_text() == "kept"


def test_a_tree_of_any_depth_takes_few_descriptors(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    here = os.open(tree, os.O_RDONLY)
    for _ in range(2000):
        os.mkdir("deeper", dir_fd=here)
        os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=here))
        inner = os.open("deeper", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    before = len(os.listdir("/proc/self/fd"))
    most = 0
    for number, _ in enumerate(removing.steps(os.fspath(tree))):
        if number % 50 == 0:
            most = max(most, len(os.listdir("/proc/self/fd")))
    assert not tree.exists()
    assert most <= before + 6
    assert len(os.listdir("/proc/self/fd")) == before


def test_it_may_be_given_up_at_any_step_and_begun_again(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for number in range(5):
        (tree / f"d{number}" / "inner" / "most").mkdir(parents=True)
        (tree / f"d{number}" / "inner" / "file").write_text("x")
    rounds = 0
    while tree.exists():
        steps: Iterator[None] = removing.steps(os.fspath(tree))
        for _ in range(2):
            next(steps, None)
        del steps
        rounds += 1
    assert rounds > 5


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory that every user reaches and may write to."""
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o777)
        yield Path(place)


def test_what_a_task_has_closed_to_itself_is_removed(shared: Path) -> None:

    def act() -> bool:
        tree = shared / "tree"
        (tree / "closed" / "inner" / "most").mkdir(parents=True)
        (tree / "closed" / "inner" / "file").write_text("x")
        for each in (tree / "closed" / "inner" / "most", tree / "closed" / "inner"):
            os.chmod(each, 0)
        os.chmod(tree / "closed", 0o100)
        os.chmod(tree, 0o500)
        remove(tree)
        return not tree.exists()

    if os.getuid() == 0:
        assert users.as_user(users.STRANGER, [], act)
    else:
        assert act()


def test_what_cannot_be_removed_is_an_error_and_no_loop(shared: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can make what another user cannot remove")
    inner = shared / "tree" / "roots"
    inner.mkdir(parents=True)
    (inner / "file").write_text("x")
    os.chown(shared / "tree", users.STRANGER, -1)

    def act() -> str:
        try:
            remove(shared / "tree")
        except PermissionError:
            return "refused"
        return "removed"

    assert users.as_user(users.STRANGER, [], act) == "refused"
    assert (inner / "file").exists()
