"""Releases with a Python of their own, as most have one."""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path


def add_python(release: str, library: Path) -> None:
    """A virtual environment in the release, made by hand: taskd from ``library``, and what else it
    needs from where the tests have it."""
    venv = Path(release, ".venv")
    site = Path(sysconfig.get_path("purelib", vars={"base": str(venv)}))
    for folder in (venv / "bin", site):
        folder.mkdir(parents=True)
    base = os.path.realpath(sys.executable)
    os.symlink(base, venv / "bin" / "python")
    (venv / "pyvenv.cfg").write_text(f"home = {os.path.dirname(base)}\n")
    others = [sysconfig.get_path(name) for name in ("purelib", "platlib")]
    paths = list(dict.fromkeys([str(library), *others]))
    (site / "first.pth").write_text(f"import sys; sys.path[:0] = {paths}\n")
