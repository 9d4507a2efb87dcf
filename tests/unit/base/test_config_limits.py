"""Limits in taskd.toml: as they are kept, and what a wrong one is told."""

from __future__ import annotations

from typing import Any

import pytest

from taskd import config
from taskd.errors import ConfigError

APP = {"release": "/srv/app/current", "modules": ["app"]}


def test_limits_are_kept_by_name_and_are_what_a_release_is_proved_with() -> None:
    table: dict[str, Any] = {
        "app": APP,
        "limits": {"api": {"rate": "100/min", "burst": 5}},
        "tasks": {"index": {"concurrency": 2}},
        "queues": {"mail": {"concurrency": 3, "rate": "5/s"}},
    }
    found = config.Config.from_table(table, "f")
    assert found.app.limits == {
        "api": {"rate": "100/min", "burst": 5},
        "=task:index": {"concurrency": 2},
        "=queue:mail": {"rate": "5/s"},
    }
    assert found.app.proved().limits == found.app.limits
    assert found.queues["mail"] == 3
    new = ["queues.mail.rate", "[limits.api]", "[tasks.index]"]
    assert config.new_keys(table) == new


@pytest.mark.parametrize(
    ("sections", "why"),
    [
        ({"limits": {"api": {}}}, "limits.api: give concurrency, rate, or both"),
        ({"limits": {"a:b": {"concurrency": 1}}}, "limits.a:b: a limit's name has letters"),
        ({"limits": {"api": {"rate": "fast"}}}, "limits.api: rate must be a text such as"),
        ({"limits": {"api": {"burst": 2}}}, "limits.api: burst says how many of a rate"),
        ({"tasks": {"a": {"concurrency": 0}}}, "tasks.a: concurrency must be a whole number"),
        ({"tasks": {"a": {"most": 1}}}, "unknown key tasks.a.most: known here are concurrency"),
        ({"tasks": {"a": 1}}, "tasks.a: expected a section"),
        ({"queues": {"q": {"rate": "0/s"}}}, "queues.q: rate: '0/s'"),
    ],
)
def test_a_limit_that_is_none_is_named(sections: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        config.Config.from_table({"app": APP, **sections}, "f")
