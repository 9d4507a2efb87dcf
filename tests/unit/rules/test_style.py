"""The checks that every file passes: lint, format, types, length."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import taskd

ROOT = Path(taskd.__file__).parent.parent
LONGEST = 400
EXCUSE = "Longer than 400 lines because"


def check(*command: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_ruff_finds_nothing() -> None:
    check("ruff", "check", ".")


def test_every_file_is_formatted() -> None:
    check("ruff", "format", "--check", ".")


@pytest.mark.timeout(900)  # with nothing cached, beside other tests
def test_mypy_strict_finds_nothing_in_the_package() -> None:
    check("mypy", "--strict", "taskd")


@pytest.mark.parametrize("folder", ["taskd", "tests"])
def test_a_file_over_400_lines_says_why_in_its_header(folder: str) -> None:
    wrong = [
        str(file.relative_to(ROOT))
        for file in sorted((ROOT / folder).rglob("*.py"))
        if len((text := file.read_text(encoding="utf-8")).splitlines()) > LONGEST
        and EXCUSE not in " ".join((ast.get_docstring(ast.parse(text)) or "").split())
    ]
    assert not wrong, f"{wrong}: split them, or say in the header '{EXCUSE} …'"


def test_no_file_is_named_after_nothing() -> None:
    """A file called utils has no responsibility, and so takes every one."""
    nothing = {"utils.py", "util.py", "helpers.py", "misc.py", "common.py"}
    assert not [file for file in (ROOT / "taskd").rglob("*.py") if file.name in nothing]


def test_no_two_test_files_have_one_name() -> None:
    """pytest imports them by base name and, where two share one, collects nothing at all."""
    names = Counter(file.name for file in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []
