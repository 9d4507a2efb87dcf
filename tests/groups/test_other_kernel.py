"""The tests of limits, on a kernel that can: where this machine's own cannot."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support import uml
from support.groups import can_limit, mounted

REQUIRED = ("CI", "TASKD_SYSTEM_TESTS")


@pytest.mark.timeout(1000)
def test_limits_hold_on_a_kernel_that_has_the_controllers(tmp_path: Path) -> None:
    if not uml.is_there():
        why = f"needs root and {uml.PROGRAM} (Debian's user-mode-linux)"
        if any(os.environ.get(name) for name in REQUIRED):
            pytest.fail(why)
        pytest.skip(why)
    if can_limit(mounted()):
        pytest.skip("this machine's own kernel has them: the tests have run on it")
    status, said = uml.run_pytest(tmp_path, ["tests/groups/test_limits.py"])
    assert status == 0, said
    assert " skipped" not in said and " passed" in said, said
