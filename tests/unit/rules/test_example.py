"""The example app holds what its README says: its own tests pass and its configuration is one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import taskd
from taskd import config

EXAMPLE = Path(taskd.__file__).parent.parent / "contrib" / "example"


def test_the_example_s_own_tests_pass() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir=."]
    ran = subprocess.run(
        [*command, "-c", "/dev/null"],
        cwd=EXAMPLE / "releases" / "r1",
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_its_configuration_is_one_and_names_its_module_and_queue() -> None:
    found = config.load(str(EXAMPLE / "taskd.toml"))
    assert found.app.modules == ["shop_tasks"]
    assert found.queues["letters"] == 2
    assert (EXAMPLE / "releases" / "r1" / "shop_tasks.py").is_file()
