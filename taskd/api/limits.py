"""What ``@task`` and ``taskd.limit`` say about limits: checked where it is written.

Used wherever an app's modules are imported. The numbers go to the daemon with the tasks that name
the limit, in the manifest.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, TypedDict

from taskd.model import limits
from taskd.model.limits import Numbers


class LimitOptions(TypedDict, total=False):
    """``concurrency``: tasks of this name that may run at once, whatever their revision; ``rate``:
    starts, such as "100/min", of which ``burst`` may come at once. ``limit``: a limit that others
    may share, by name ("api") or by an argument ("customer:{customer_id}"), whose numbers
    ``taskd.limit`` or [limits.NAME] say; ``limits``: several of these."""

    concurrency: int | None
    rate: str | None
    burst: int | None
    limit: str | None
    limits: Sequence[str]


_declared: dict[str, Numbers] = {}
"""By name, as ``limit`` was told."""


def limit(
    name: str, *, concurrency: int | None = None, rate: str | None = None, burst: int | None = None
) -> None:
    """The numbers of the limit ``name``, for each of its keys: of all tasks with ``limit="name"``
    or ``limit="name:{argument}"``, ``concurrency`` run at once and ``rate`` ("100/min") start, of
    which ``burst`` may come at once (by default a second's worth). [limits.NAME] in taskd.toml goes
    before it. Raises ValueError."""
    said = {"concurrency": concurrency, "rate": rate, "burst": burst}
    found = limits.numbers(said)
    if found is None:
        raise ValueError(f"taskd.limit({name!r}): give concurrency, rate, or both")
    if _declared.setdefault(limits.check_name(name), found) != found:
        raise ValueError(f"taskd.limit({name!r}) is called twice, with other numbers")


class Limited:
    """What one task says."""

    def __init__(self, name: str, said: LimitOptions, signature: inspect.Signature) -> None:
        """Raises TypeError and ValueError."""
        if unknown := sorted(said.keys() - LimitOptions.__annotations__.keys()):
            raise TypeError(f"@task has no option {unknown[0]!r}")
        one, more = said.get("limit"), said.get("limits") or ()
        if isinstance(more, str):
            raise TypeError(f"task '{name}': limits is a list; for a single one write limit=")
        self._keys = [*([] if one is None else [one]), *more]
        self._defaults: dict[str, Any] = {}
        try:
            self._own = limits.numbers(said)
            if len(self._keys) > limits.MOST:
                raise ValueError(f"at most {limits.MOST} limits")
            for template in self._keys:
                for _, argument in limits.parts(template):
                    if argument is not None:
                        self._check(template, argument, signature)
        except ValueError as error:
            raise ValueError(f"task '{name}': {error}") from None

    def _check(self, template: str, argument: str, signature: inspect.Signature) -> None:
        parameter = signature.parameters.get(argument)
        if parameter is None:
            raise ValueError(f"limit {template!r}: the function has no parameter {argument!r}")
        if type(parameter.default) in (str, int, bool):
            self._defaults[argument] = parameter.default

    def in_manifest(self) -> dict[str, Any] | None:
        """See ``task`` in ``protocol.worker``; None: nothing was said."""
        if not self._keys and self._own is None:
            return None
        names = {template.partition(":")[0] for template in self._keys}
        return {
            "keys": self._keys,
            "defaults": self._defaults,
            "own": None if self._own is None else list(self._own),
            "numbers": {name: list(_declared[name]) for name in sorted(names & _declared.keys())},
        }
