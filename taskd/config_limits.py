"""``[limits.NAME]``, ``[tasks.NAME]`` and the rates of queues in ``taskd.toml``.

Used by ``config`` alone. They belong to what a release is proved with, as the sections of schedules
do, so they are kept as the file has them: text and numbers.
"""

from __future__ import annotations

from typing import Any

from taskd.errors import ConfigError
from taskd.model import limits

QUEUE, TASK = "=queue:", "=task:"
"""How names begin that stand for a queue or a task (see ``store.limit_api``)."""

KEYS = ("concurrency", "rate", "burst")


def read(table: dict[str, Any], source: str) -> dict[str, dict[str, Any]] | None:
    """What the file says, by the limit's name; None: nothing. Raises ConfigError."""
    found: dict[str, dict[str, Any]] = {}
    for section, prefix in (("limits", ""), ("tasks", TASK)):
        named = table.get(section, {})
        if not isinstance(named, dict):
            raise ConfigError(f"{source}: {section}: expected sections [{section}.NAME]")
        for name, said in named.items():
            where = f"{section}.{name}"
            if not isinstance(said, dict):
                raise ConfigError(f"{source}: {where}: expected a section [{where}]")
            if unknown := sorted(said.keys() - set(KEYS)):
                raise ConfigError(
                    f"{source}: unknown key {where}.{unknown[0]}: known here are {', '.join(KEYS)}"
                )
            found[prefix + name] = _checked(said, where, source, None if prefix else name)
    for name, section in table.get("queues", {}).items():
        said = {key: section[key] for key in ("rate", "burst") if key in section}
        if said:
            found[QUEUE + name] = _checked(said, f"queues.{name}", source, None)
    return found or None


def _checked(said: dict[str, Any], where: str, source: str, limit: str | None) -> dict[str, Any]:
    try:
        if limit is not None:
            limits.check_name(limit)
        if limits.numbers(said) is None:
            raise ValueError("give concurrency, rate, or both")
    except ValueError as error:
        raise ConfigError(f"{source}: {where}: {error}") from None
    return dict(said)
