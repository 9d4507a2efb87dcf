"""How taskd.toml says how long tasks may run."""

from __future__ import annotations

import pytest

from taskd.config import Config
from taskd.errors import ConfigError

LEAST = {"app": {"release": "/srv/app/current", "modules": ["app.tasks"]}}


def test_a_timeout_is_the_queues_own_or_that_of_default_or_none() -> None:
    queues = {"default": {"timeout": "2h"}, "short": {"timeout": 0.5}, "free": {"timeout": "none"}}
    found = Config.from_table(LEAST | {"queues": queues}, "t")
    assert [found.timeout(each) for each in ("unnamed", "short", "free")] == [7200.0, 0.5, None]
    assert Config.from_table(LEAST, "t").timeout("default") is None


@pytest.mark.parametrize("value", [0, "", "0s", -1, True, "soon"])
def test_a_timeout_of_nothing_is_an_error(value: object) -> None:
    with pytest.raises(ConfigError, match=r"queues\.q\.timeout: expected .* above 0"):
        Config.from_table(LEAST | {"queues": {"q": {"timeout": value}}}, "t")
