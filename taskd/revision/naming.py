"""What a release is called: the end of its path, as much as tells it from the others. Pure.

Its directory's base name, mostly. Where another release's directory is called the same (as with
``releases/41/app`` and ``releases/42/app``), the directories above it come in: ``42/app``.
"""

from __future__ import annotations

from collections.abc import Iterable


def name(path: str, others: Iterable[str]) -> str:
    """What the release at ``path`` is called beside those at ``others``; all are real paths."""
    parts = _parts(path)
    found = [_parts(other) for other in others if other != path]
    size = 1
    while size < len(parts) and any(each[-size:] == parts[-size:] for each in found):
        size += 1
    return "/".join(parts[-size:])


def is_meant(path: str, word: str) -> bool:
    """Whether somebody who says ``word`` may mean the release at ``path``: its path or the end of
    it, by whole names."""
    wanted = _parts(word)
    return bool(wanted) and _parts(path)[-len(wanted) :] == wanted


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part]
