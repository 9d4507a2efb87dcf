"""What is built of the tree: its name, what is in it, and that nothing names a stranger's.

The tests that build need hatchling, which comes with the extra `test`.
"""

from __future__ import annotations

import email
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from support import wheels

import taskd

ROOT = Path(taskd.__file__).parents[1]
NAMED = f"{wheels.NAME}-{taskd.__version__}"

STRANGER = re.compile(r"\binstall\s+(?:-\S+\s+)*[\"']?taskd(?![-\w/.])")
"""`install taskd`, but neither `uninstall taskd` nor `install taskd-supervisor`."""


def built(kind: str, tree: Path) -> Path:
    """What hatchling's hook of this kind makes of the tree."""
    pytest.importorskip("hatchling", reason="it comes with the extra `test`")
    script = f"import hatchling.build as b; print(b.build_{kind}('dist'))"
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=tree, capture_output=True, text=True, check=True
    )
    return tree / "dist" / ran.stdout.split()[-1]


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built("wheel", wheels.copy(tmp_path_factory.mktemp("wheel") / "tree"))


def test_the_wheel_has_the_units_and_says_its_name_and_licence(wheel: Path) -> None:
    assert wheel.name == f"{NAMED}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        there = {
            name.removeprefix("taskd/systemd/units/"): archive.read(name)
            for name in names
            if name.startswith("taskd/systemd/units/")
        }
        entries = archive.read(f"{NAMED}.dist-info/entry_points.txt").decode()
        said = email.message_from_bytes(archive.read(f"{NAMED}.dist-info/METADATA"))
    assert there == contents(ROOT / "systemd")
    assert {"taskd/py.typed", "taskd/demo/releases/r2/release.py"} <= names
    assert {name.partition("/")[0] for name in names} == {"taskd", f"{NAMED}.dist-info"}
    assert f"{NAMED}.dist-info/licenses/LICENSE" in names
    assert "[pytest11]\ntaskd = taskd.pytest_plugin\n" in entries
    assert (said["Name"], said["License-Expression"]) == ("taskd-supervisor", "MIT")


def test_the_source_archive_has_all_that_another_build_and_the_tests_need(tmp_path: Path) -> None:
    tree = wheels.copy(tmp_path / "tree")
    for name in ("tests", "contrib"):
        unwanted = shutil.ignore_patterns("__pycache__", "golden")
        shutil.copytree(ROOT / name, tree / name, ignore=unwanted)
    shutil.copy(ROOT / "CONTRIBUTING.md", tree)
    with tarfile.open(built("sdist", tree)) as archive:
        archive.extractall(tmp_path, filter="data")
    source = tmp_path / NAMED
    assert contents(source / "systemd") == contents(ROOT / "systemd")
    assert contents(source / "taskd" / "systemd" / "units") == contents(ROOT / "systemd")
    documents = ("CONTRIBUTING.md", "LICENSE", "README.md")
    for name in ("tests/unit/rules/test_distribution.py", "contrib/deploy", *documents):
        assert (source / name).read_bytes() == (ROOT / name).read_bytes()
    assert os.access(source / "contrib" / "deploy", os.X_OK)
    assert built("wheel", source).name == f"{NAMED}-py3-none-any.whl"


def test_an_editable_installation_is_one_line_of_a_path(tmp_path: Path) -> None:
    """A finder that is imported instead would take 20 ms of each start of Python."""
    tree = wheels.copy(tmp_path / "tree")
    with zipfile.ZipFile(built("editable", tree)) as archive:
        (path,) = [name for name in archive.namelist() if ".dist-info" not in name]
        assert path.endswith(".pth")
        assert archive.read(path).decode().split() == [str(tree)]


def test_nothing_tells_anybody_to_install_a_strangers_package() -> None:
    for text in ("pip install taskd", "pip install -U -q 'taskd'", "install \n taskd && x"):
        assert STRANGER.search(text)
    for text in ("pip uninstall taskd", "pip install taskd-supervisor", "pip install ./taskd"):
        assert not STRANGER.search(text)
    found = []
    for name in (
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "contrib",
        "systemd",
        "taskd",
        ".ci",
        "pyproject.toml",
    ):
        place = ROOT / name
        for file in [place] if place.is_file() else sorted(place.rglob("*")):
            if file.is_file() and file.suffix != ".pyc":
                # a text of the code may go on in the next line
                text = re.sub(r'"\s*\n\s*f?"', "", file.read_text(errors="replace"))
                found += [f"{file}: {match.group()!r}" for match in STRANGER.finditer(text)]
    assert not found


class Environment:
    """A virtual environment without any of the dependencies.

    What installs into it is the pip beside these tests, where there is one: to give it a pip of its
    own takes half a minute.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        python = path / "bin" / "python"
        is_there = importlib.util.find_spec("pip") is not None
        venv.create(path, with_pip=not is_there, symlinks=True)
        where = [sys.executable, "-m", "pip", "--python", python]
        self._pip = where if is_there else [python, "-m", "pip"]

    def pip(self, *words: str | Path) -> None:
        command = [*self._pip, "-q", *words]
        subprocess.run(command, check=True, capture_output=True, text=True)

    def install(self, *words: str | Path) -> None:
        self.pip("install", "--no-index", "--no-deps", "--no-compile", *words)

    def taskd(self, *words: str) -> subprocess.CompletedProcess[str]:
        others = os.pathsep.join(path for path in sys.path if path.endswith("-packages"))
        return subprocess.run(
            [self.path / "bin" / "taskd", *words],
            env={"HOME": str(self.path / "home"), "PATH": os.defpath, "PYTHONPATH": others},
            capture_output=True,
            text=True,
        )


def test_a_distribution_of_the_name_taskd_gives_way_to_this_one(
    wheel: Path, tmp_path: Path
) -> None:
    """Both have the same files: pip, which goes by distributions, does not see it."""
    tree = wheels.copy(tmp_path / "tree")
    project = tree / "pyproject.toml"
    project.write_text(project.read_text().replace('name = "taskd-supervisor"', 'name = "taskd"'))
    environment = Environment(tmp_path / "venv")
    environment.install(built("wheel", tree))
    environment.install(wheel)
    assert environment.taskd("--version").stdout == f"taskd {taskd.__version__}\n"

    refused = environment.taskd("install", "--user", "--dry-run")
    assert refused.returncode == 1
    other = f"taskd-{taskd.__version__}.dist-info"
    assert f"the distribution `taskd` ({other}) is installed" in refused.stderr
    assert "pip uninstall taskd" in refused.stderr and "--force-reinstall" in refused.stderr

    environment.pip("uninstall", "-y", "taskd")
    assert not (environment.path / "bin" / "taskd").exists(), "what pip took along"
    environment.install("--force-reinstall", wheel)
    assert environment.taskd("--version").stdout == f"taskd {taskd.__version__}\n"
    would = environment.taskd("install", "--user", "--dry-run")
    assert would.returncode == 0 and "would create" in would.stdout, would.stderr
