"""Which keys of taskd.toml the version before refuses, so that a rollback can name them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from taskd import config, config_rules

WHEEL = Path(__file__).parents[2] / "golden" / "taskd_supervisor-0.2.0-py3-none-any.whl"


def test_the_keys_that_the_version_before_refuses_are_known_as_new() -> None:
    rules = config_rules.RULES | {"queues.q": config_rules._QUEUE_RULES}
    table: dict[str, Any] = {
        name: dict.fromkeys(keys, 1) for name, keys in rules.items() if "." not in name
    }
    table["queues"] = {"q": dict.fromkeys(config_rules._QUEUE_RULES, 1)}
    look = f"import sys; sys.path.insert(0, {str(WHEEL)!r}); from taskd import config; "
    look += "rules = config.RULES | {'queues.q': config._QUEUE_RULES}; "
    look += "print(*(f'{name}.{key}' for name, keys in rules.items() for key in keys))"
    ran = subprocess.run(
        [sys.executable, "-P", "-c", look], capture_output=True, text=True, check=True, cwd="/"
    )
    known = set(ran.stdout.split())
    assert "app.release" in known
    ours = {f"{name}.{key}" for name, keys in rules.items() for key in keys}
    assert set(config.new_keys(table)) == ours - known, "say is_new=True of each in config_rules"
