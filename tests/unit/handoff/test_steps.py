"""The steps of a handoff: the switch of the tests for a failure works beside the tests alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import taskd

TREE = Path(taskd.__file__).parents[1]


@pytest.mark.parametrize("is_installed", [True, False])
def test_an_installed_daemon_fails_at_no_step_that_is_asked_for(
    tmp_path: Path, is_installed: bool
) -> None:
    library = TREE
    if is_installed:
        library = tmp_path / "site-packages"
        shutil.copytree(TREE / "taskd", library / "taskd")
    fault = tmp_path / "fault"
    fault.write_text("load exit\n")
    code = (
        f"import sys; sys.path.insert(0, {str(library)!r}); from taskd.upgrade import steps; "
        "steps.reach('load'); print(steps.patience(60, ('load',)), steps.__file__)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"TASKD_FAULT": str(fault)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == (0 if is_installed else 3), ran.stderr
    assert fault.exists() == is_installed
    if is_installed:
        assert ran.stdout == f"60 {library}/taskd/upgrade/steps.py\n"
