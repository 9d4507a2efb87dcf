"""What ``@task`` says about when a task is run by itself: checked where it is written.

Used wherever an app's modules are imported. The master makes a schedule of it, from the manifest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from taskd.api.limits import LimitOptions
from taskd.api.retry_rules import Backoff, Exceptions
from taskd.model import schedule


class ScheduleOptions(TypedDict, total=False):
    """``cron``: five fields, or @hourly to @yearly; or ``every``: "30s", counted from midnight UTC.
    ``tz``: the zone of ``cron`` (UTC). ``late``: how late a slot still runs (10 minutes). Of those
    that were missed, ``catch_up`` runs none ("skip"), one for all ("once"), or "all". A slot that
    meets an earlier run is skipped (``overlap="skip"``), runs after it ("queue") or beside it
    ("run"). ``spread``: starts are put off by a time within this, always the same."""

    cron: str
    every: str | float
    tz: str
    late: str | float
    catch_up: str
    overlap: str
    spread: str | float


class MoreOptions(ScheduleOptions, LimitOptions):
    """Those of ``@task`` that have a part of their own."""


class TaskOptions(MoreOptions, total=False):
    """All options of ``@task``."""

    name: str | None
    queue: str
    version: int
    on_deploy: str
    check: bool
    retries: int
    backoff: Backoff
    max_backoff: float | None
    jitter: float | None
    retry_on: Exceptions | None
    give_up_on: Exceptions
    timeout: float | str | None
    silent_after: float | str | None


def apart(more: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is said of schedules, and what of limits."""
    limited = {name: more[name] for name in more if name in LimitOptions.__annotations__}
    return {name: more[name] for name in more if name not in limited}, limited


def checked(name: str, said: Mapping[str, Any], unbound: str | None) -> dict[str, Any] | None:
    """What goes into the manifest; None: nothing was said. ``unbound``: why the task cannot be
    called without arguments. Raises TypeError and ValueError."""
    if unknown := sorted(said.keys() - ScheduleOptions.__annotations__.keys()):
        raise TypeError(f"@task has no option {unknown[0]!r}")
    if not said:
        return None
    try:
        schedule.make(name, "code", name, said)
    except ValueError as error:
        raise ValueError(f"task '{name}': its schedule: {error}") from None
    if unbound is not None:
        raise ValueError(
            f"task '{name}' is run by its schedule without arguments: {unbound}. Give them "
            f"defaults, or write [schedules.NAME] with args into taskd.toml instead"
        )
    return dict(said)
