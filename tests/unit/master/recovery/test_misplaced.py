"""Slots that are not under their own names, and a master that dies while it puts them right."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from unittest import mock

import pytest

from taskd.master.recovery import misplaced
from taskd.slot import layout


class Killed(BaseException):
    """In place of SIGKILL: nothing of the code at hand is carried out any more."""


def slot(directory: Path, owner: int, name: int) -> None:
    """The slot of worker ``owner`` under the name of ``name``'s."""
    header = layout.Header(bytes([owner]) * 16, 1, 2, "boot", "r1")
    path = directory / layout.file_name(bytes([name]) * 16)
    path.write_bytes(layout.encode_header(header))


def owners(directory: Path) -> dict[str, int]:
    """Whose slot stands under each name."""
    found = {}
    for path in directory.iterdir():
        found[path.name] = layout.decode_header(path.read_bytes()).worker[0]
    return found


def own_names(*workers: int) -> dict[str, int]:
    return {layout.file_name(bytes([each]) * 16): each for each in workers}


def put_right_until(directory: Path, most: int) -> bool:
    """Die in place of rename number ``most`` + 1; whether it came so far."""
    rename, count = os.rename, itertools.count()

    def counted(old: str, new: str) -> None:
        if next(count) == most:
            raise Killed
        rename(old, new)

    with mock.patch("os.rename", counted):
        try:
            misplaced.put_right(str(directory))
        except Killed:
            return True
    return False


def test_names_that_were_exchanged_are_put_right_wherever_a_master_dies_in_it(
    tmp_path: Path,
) -> None:
    for step in itertools.count():
        directory = tmp_path / str(step)
        directory.mkdir()
        for owner, name in ((1, 2), (2, 3), (3, 1), (4, 4)):
            slot(directory, owner, name)
        died = put_right_until(directory, step)
        misplaced.put_right(str(directory))
        assert owners(directory) == own_names(1, 2, 3, 4), f"after {step} renames"
        if not died:
            break
    assert step == 6


@pytest.mark.parametrize("order", list(itertools.permutations([(2, 1), (2, 2), (1, 3)])))
def test_a_copy_in_anothers_place_does_not_cost_the_other_its_slot(
    tmp_path: Path, order: tuple[tuple[int, int], ...]
) -> None:
    for owner, name in order:
        slot(tmp_path, owner, name)
    names = [layout.file_name(bytes([name]) * 16) for _, name in order]
    with mock.patch("os.listdir", return_value=names):
        misplaced.put_right(str(tmp_path))
    found = owners(tmp_path)
    assert own_names(1, 2).items() <= found.items()
    assert sorted(found.values()) == [1, 2, 2], "nothing is gone"
