"""taskd as a wheel, built from the tree under test, and the wheels of what it needs.

The dependencies are kept beside the roots, by a hash of their list, for each Python that a root
has: inside a machine nothing is downloaded.
"""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import sys
import tomllib
from pathlib import Path

from support.roots import CACHE, DEBIANS, locked, said

import taskd

SOURCE = Path(taskd.__file__).parents[1]
BUILT_FROM = ("taskd", "systemd", "pyproject.toml", "README.md", "LICENSE")
NAME = "taskd_supervisor"
"""Of the distribution, as it stands in the names of files."""


def build(into: Path, version: str = taskd.__version__) -> Path:
    """The wheel of the tree under test, made in ``into``; ``version``: what it says it is."""
    tree = copy(into / "tree")
    for file in (tree / "pyproject.toml", tree / "taskd" / "__init__.py"):
        file.write_text(file.read_text().replace(f'"{taskd.__version__}"', f'"{version}"'))
    # The backend comes with the extra `test`; pip would else download it for each build.
    here = ["--no-build-isolation"] if importlib.util.find_spec("hatchling") else []
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", *here]
    said(*pip, "-w", str(into), str(tree))
    (wheel,) = into.glob(f"{NAME}-{version}-*.whl")
    return wheel


def copy(tree: Path) -> Path:
    """What a wheel is built from, anew in ``tree``: a build may leave files behind, which the next
    one would pick up."""
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir(parents=True)
    for name in BUILT_FROM:
        _copy(SOURCE / name, tree / name)
    return tree


def dependencies() -> Path:
    """The directory with the wheels of everything that taskd needs, for every root's Python."""
    with (SOURCE / "pyproject.toml").open("rb") as file:
        needed: list[str] = tomllib.load(file)["project"]["dependencies"]
    pythons = [debian.python for debian in DEBIANS]
    name = hashlib.sha256(repr([needed, pythons]).encode()).hexdigest()[:12]
    house = CACHE / f"wheels-{name}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with locked(house.with_suffix(".lock")):
        if not house.exists():
            _download(needed, pythons, house)
    return house


def _download(needed: list[str], pythons: list[str], house: Path) -> None:
    """Some are there as sources only: those are made here, the rest is as each Python wants it."""
    unfinished = house.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    place, pip = str(unfinished), [sys.executable, "-m", "pip"]
    said(*pip, "wheel", "-q", "-w", place, *needed)
    for python in pythons:
        only = ["--only-binary=:all:", "--python-version", python, "--find-links", place]
        said(*pip, "download", "-q", *only, "-d", place, *needed)
    unfinished.rename(house)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)
