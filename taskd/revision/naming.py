"""The name of a release: the shortest end of its path that tells it from the others. Pure.

Usually its directory's base name. If another release's directory has the same (as with
``releases/41/app`` and ``releases/42/app``), the directories above it are part of the name:
``42/app``.
"""

from __future__ import annotations

from collections.abc import Iterable


def name(path: str, others: Iterable[str]) -> str:
    """The name of the release at ``path`` beside the releases at ``others``; all are real paths."""
    parts = _parts(path)
    found = [_parts(other) for other in others if other != path]
    size = 1
    while size < len(parts) and any(each[-size:] == parts[-size:] for each in found):
        size += 1
    return "/".join(parts[-size:])


def is_meant(path: str, word: str) -> bool:
    """Whether ``word``, which an operator gave, fits the release at ``path``: the path or an end
    of it, in whole names."""
    wanted = _parts(word)
    return bool(wanted) and _parts(path)[-len(wanted) :] == wanted


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part]
