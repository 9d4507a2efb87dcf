"""``[schedules.NAME]``: what a wrong one is told, before any release is looked at."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from taskd import config
from taskd.errors import ConfigError


@pytest.mark.parametrize(
    ("section", "why"),
    [
        ({"tsk": "a"}, "unknown key schedules.nightly.tsk: did you mean task"),
        ({"cron": "0 3 * * *"}, "schedules.nightly.task: expected the name of a task"),
        ({"task": "a", "args": {"day": date(2026, 1, 1)}}, "write dates and times as texts"),
        ("daily", "schedules.nightly: expected a section"),
    ],
)
def test_a_schedule_that_is_not_one_is_named(section: Any, why: str) -> None:
    app = {"release": "/srv/app/current", "modules": ["app"]}
    with pytest.raises(ConfigError, match=why):
        config.Config.from_table({"app": app, "schedules": {"nightly": section}}, "f")
