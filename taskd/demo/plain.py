"""The tasks' results, computed plainly: loops without taskd, steps, saved state or a deploy.

Written apart from the releases' code on purpose: it is what they are compared with.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

LEFT_OUT = {"__pycache__", "site-packages", "dist-packages", "test", "tests"}  # folders


def library_files(library: str) -> list[str]:
    """The names, below ``library``, of its Python sources, sorted."""
    found: list[str] = []
    for path, folders, names in os.walk(library):
        folders[:] = set(folders) - LEFT_OUT
        paths = (os.path.join(path, name) for name in names if name.endswith(".py"))
        found += (os.path.relpath(path, library) for path in paths)
    return sorted(found)


def result(name: str, library: str, files: Sequence[str]) -> dict[str, Any]:
    """What task ``name`` returns for these files, but for its count by release.

    For ``command``, which is a shell script: the lines that it prints.
    """
    texts = [Path(library, file).read_bytes() for file in files]
    sums = [hashlib.sha256(text).hexdigest() for text in texts]
    if name == "command":
        return {f"{each}  {file}": "printed" for each, file in zip(sums, files, strict=True)}
    found: dict[str, Any] = {"files": len(texts), "bytes": sum(map(len, texts))}
    if name == "compress_files":
        return found | {"compressed": sum(len(zlib.compress(text, 9)) for text in texts)}
    chain = ""
    for each in sums:
        chain = hashlib.sha256((chain + each).encode()).hexdigest()
    return found | {"hash": chain}
