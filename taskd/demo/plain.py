"""The tasks' results, computed plainly: loops without taskd, steps, saved state or a deploy.

Written apart from the releases' code on purpose: it is what they are compared with.
"""

from __future__ import annotations

import hashlib
import keyword
import os
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

LEFT_OUT = ["__pycache__", "site-packages", "dist-packages", "test", "tests"]
"""Folders of the library that the demo does not index."""


def library_files(library: str) -> list[str]:
    """The names, below ``library``, of its Python sources, sorted."""
    return sorted(_walk(library, ""))


def _walk(folder: str, prefix: str) -> Iterable[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if entry.name not in LEFT_OUT:
                    yield from _walk(entry.path, f"{prefix}{entry.name}/")
            elif entry.name.endswith(".py"):
                yield prefix + entry.name


def result(name: str, library: str, files: Sequence[str]) -> dict[str, Any]:
    """What task ``name`` returns for these files, but for its count by release."""
    texts = [_read(os.path.join(library, file)) for file in files]
    return {"files": len(texts), "bytes": sum(map(len, texts)), **_KINDS[name](texts)}


def checksums(library: str, files: Sequence[str]) -> dict[str, Any]:
    """What the shell command finds out: each file's SHA-256."""
    return {file: hashlib.sha256(_read(os.path.join(library, file))).hexdigest() for file in files}


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _hashed(texts: Sequence[bytes]) -> dict[str, Any]:
    chain = ""
    for text in texts:
        chain = hashlib.sha256((chain + hashlib.sha256(text).hexdigest()).encode()).hexdigest()
    return {"hash": chain}


def _worded(texts: Sequence[bytes]) -> dict[str, Any]:
    words: Counter[str] = Counter()
    for text in texts:
        words.update(re.findall(r"\w+", text.decode("utf-8", "replace")))
    return {"words": words.total(), **{word: words[word] for word in keyword.kwlist}}


def _compressed(texts: Sequence[bytes]) -> dict[str, Any]:
    return {"compressed": sum(len(zlib.compress(text, 9)) for text in texts)}


def _defined(texts: Sequence[bytes]) -> dict[str, Any]:
    patterns = {
        "def": rb"(?m)^\s*(?:async +)?def\s",
        "class": rb"(?m)^\s*(?:async +)?class\s",
        "import": rb"(?m)^\s*(?:async +)?import\s",
    }
    return {
        kind: sum(len(re.findall(pattern, text)) for text in texts)
        for kind, pattern in patterns.items()
    }


_KINDS: dict[str, Callable[[Sequence[bytes]], dict[str, Any]]] = {
    "hash_files": _hashed,
    "count_words": _worded,
    "compress_files": _compressed,
    "find_definitions": _defined,
}
