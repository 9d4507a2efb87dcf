"""The file that tells after a restart what was refused before it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from taskd.revision import rejected
from taskd.revision.rejected import Rejected

ONE = Rejected("r2", "/srv/app/releases/r2", "r2 does not import: line 1\nline 2 “ö”", 12.5)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    rejected.write(str(tmp_path), [ONE, ONE._replace(at=13.0)])
    assert rejected.read(str(tmp_path)) == [ONE, ONE._replace(at=13.0)]
    assert [each.name for each in tmp_path.iterdir()] == ["rejected"]


def test_without_a_file_nothing_was_refused(tmp_path: Path) -> None:
    assert rejected.read(str(tmp_path)) == []


def test_a_name_that_is_no_text_survives(tmp_path: Path) -> None:
    odd = ONE._replace(path="/srv/r\udcff")
    rejected.write(str(tmp_path), [odd])
    assert rejected.read(str(tmp_path)) == [odd]


@pytest.mark.parametrize("text", ["", "[{", "{}x", "[3]", '[{"revision": "r1"}]', "7", '"text"'])
def test_a_file_that_makes_no_sense_is_logged_and_counts_as_empty(
    tmp_path: Path, text: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rejected").write_text(text)
    assert rejected.read(str(tmp_path)) == []
    assert "cannot be read" in capfd.readouterr().err


def test_unknown_fields_are_ignored(tmp_path: Path) -> None:
    (tmp_path / "rejected").write_text(json.dumps([ONE._asdict() | {"more": 1}]))
    assert rejected.read(str(tmp_path)) == [ONE]


def test_only_the_latest_are_remembered_and_a_long_reason_is_cut() -> None:
    found: list[Rejected] = []
    for number in range(rejected.REMEMBERED + 3):
        found = rejected.add(found, f"/srv/r{number}", f"r{number}", "x" * 10_000, float(number))
    assert [each.revision for each in found] == [f"r{n}" for n in range(3, 13)]
    assert all(len(each.reason) == rejected.LONGEST_REASON for each in found)


def test_a_disk_that_takes_nothing_leaves_the_file_before(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rejected.write(str(tmp_path), [ONE])
    (tmp_path / "rejected.new").mkdir()  # the new file cannot be made
    rejected.write(str(tmp_path), [])
    assert rejected.read(str(tmp_path)) == [ONE]
    assert "will not be known after a restart" in capfd.readouterr().err
