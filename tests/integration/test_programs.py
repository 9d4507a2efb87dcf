"""Programs that are queued (`taskctl run`): what is refused before it is accepted."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

import pytest
from support.daemon import Daemon

from taskd.errors import BadArguments


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    made = new_daemon()
    made.with_releases("", "r1").start()
    return made


def test_a_program_is_not_accepted_for_a_directory_that_the_daemon_cannot_enter(
    daemon: Daemon,
) -> None:
    os.mkdir(daemon.path("here"))
    os.symlink("nowhere", daemon.path("link"))
    with socket.socket(socket.AF_UNIX) as file, daemon.client() as client:
        file.bind(daemon.path("socket"))
        for name, why in {
            "missing": "No such file or directory",
            "socket": "Not a directory",
            "missing/more": "No such file or directory",
        }.items():
            path = daemon.path(name)
            with pytest.raises(BadArguments, match="taskctl run --cwd DIR") as refused:
                client.submit("command", {"argv": ["true"], "cwd": path})
            assert f"cannot enter '{path}' ({why}): it runs as user {os.getuid()}" in str(
                refused.value
            )
            assert "sandbox" not in str(refused.value), "no service manager has started it"
        assert client.tasks() == []
        done = client.submit("command", {"argv": ["pwd"], "cwd": daemon.path("here")})
        assert done.result(30) == 0
        # what cannot be known without following it is left to the task
        failed = client.submit("command", {"argv": ["true"], "cwd": daemon.path("link")}).wait(30)
        assert failed.error is not None and "there is no directory" in failed.error["message"]
