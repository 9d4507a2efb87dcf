"""In how many processes the tests run.

The whole run has three: most tests wait for processes most of the time. Whoever names a folder, a
file or a test wants to see it, and perhaps to stop in it: it runs in this process. ``-n`` overrides
both.
"""

from __future__ import annotations

import pytest

PROCESSES = 3


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Decides before pytest-xdist, which reads ``numprocesses`` in its hook of this name."""
    is_whole = config.args_source is not pytest.Config.ArgsSource.ARGS
    is_worker = hasattr(config, "workerinput")
    is_open = config.getoption("numprocesses", default=0) is None
    if is_whole and is_open and not is_worker and not config.getoption("usepdb"):
        config.option.numprocesses = PROCESSES
