"""In how many processes pytest runs the tests, by what it is told on its command line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import taskd

ROOT = Path(taskd.__file__).parents[1]
TEST = """
import os

def test_this() -> None:
    with open("seen", "w") as file:
        file.write(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "none"))
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with one test, and with this one's settings."""
    folder = tmp_path / "tests" / "unit" / "x"
    folder.mkdir(parents=True)
    (folder / "test_this.py").write_text(TEST)
    conftest = "from support.parallel import pytest_cmdline_main as pytest_cmdline_main\n"
    (tmp_path / "tests" / "conftest.py").write_text(conftest)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "workers"),
    [
        ("", "3"),
        ("tests/unit/x --pdb", "none"),
        ("--pdb", "none"),
        ("-n 0", "none"),
        ("tests/unit/x -n 2", "2"),
    ],
)
def test_the_whole_run_has_three_processes_and_a_named_part_none_but_its_own(
    project: Path, words: str, workers: str
) -> None:
    others = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *words.split()],
        cwd=project,
        env=others | {"PYTHONPATH": str(ROOT / "tests")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert (project / "seen").read_text() == workers
