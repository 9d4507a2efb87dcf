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
from collections.abc import Iterator, Sequence
from typing import Any

LEFT_OUT = ["__pycache__", "site-packages", "dist-packages", "test", "tests"]
"""Folders of the library that the demo does not index."""


def library_files(library: str) -> list[str]:
    """The names, below ``library``, of its Python sources, sorted."""
    return sorted(_walk(library, ""))


def _walk(folder: str, prefix: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if entry.name not in LEFT_OUT:
                    yield from _walk(entry.path, f"{prefix}{entry.name}/")
            elif entry.name.endswith(".py"):
                yield prefix + entry.name


def result(name: str, library: str, files: Sequence[str]) -> dict[str, Any]:
    """What task ``name`` returns for these files, but for its count by release.

    For ``command``, which is a shell script: each file's SHA-256.
    """
    texts = {file: _read(os.path.join(library, file)) for file in files}
    if name == "command":
        return {file: hashlib.sha256(text).hexdigest() for file, text in texts.items()}
    found: Counter[str] = Counter(files=len(texts), bytes=sum(map(len, texts.values())))
    chain = ""
    for text in texts.values():
        if name == "hash_files":
            chain = hashlib.sha256((chain + hashlib.sha256(text).hexdigest()).encode()).hexdigest()
        elif name == "count_words":
            words = Counter(re.findall(r"\w+", text.decode("utf-8", "replace")))
            found.update({word: words[word] for word in keyword.kwlist}, words=words.total())
        elif name == "compress_files":
            found["compressed"] += len(zlib.compress(text, 9))
        elif name == "find_definitions":
            found["def"] += len(re.findall(rb"(?m)^\s*(?:async +)?def\s", text))
            found["class"] += len(re.findall(rb"(?m)^\s*(?:async +)?class\s", text))
            found["import"] += len(re.findall(rb"(?m)^\s*(?:async +)?import\s", text))
    return {**found, "hash": chain} if chain else dict(found)


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
