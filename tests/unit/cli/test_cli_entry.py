"""The console scripts: Ctrl-C in the midst of their imports, at each of them."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import taskd

SCRIPT = """
import sys
from taskd.cli.entry import {name}

class Strikes:
    left = {number}
    def find_spec(self, name, path=None, target=None):
        self.left -= 1
        if self.left < 0:
            sys.meta_path.remove(self)
            raise KeyboardInterrupt

sys.meta_path.insert(0, Strikes())
sys.argv[1:] = ["--version"]
sys.exit({name}())
"""


@pytest.mark.parametrize("name", ["taskd", "taskctl"])
def test_ctrl_c_while_a_command_is_imported_is_no_traceback(name: str) -> None:
    for number in range(0, 300, 4):
        code = SCRIPT.format(name=name, number=number)
        ran = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
        )
        assert ran.stderr == "", number
        if ran.returncode == 0:
            assert ran.stdout == f"{name} {taskd.__version__}\n"
            break
        assert (ran.returncode, ran.stdout) == (130, ""), number
    assert number > 8


def test_what_is_installed_begins_there() -> None:
    with (Path(taskd.__file__).parents[1] / "pyproject.toml").open("rb") as file:
        scripts = tomllib.load(file)["project"]["scripts"]
    assert scripts == {name: f"taskd.cli.entry:{name}" for name in ("taskd", "taskctl")}


def test_before_the_commands_nothing_slow_is_imported() -> None:
    code = f"import sys; sys.path[:] = {sys.path!r}; import taskd.cli.entry; print(*sys.modules)"
    words = [sys.executable, "-I", "-S", "-c", code]
    ran = subprocess.run(words, capture_output=True, text=True, check=True)
    assert not {"typing", "argparse", "re", "socket"} & set(ran.stdout.split())
