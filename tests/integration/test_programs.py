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


def test_a_program_that_cannot_be_run_is_not_accepted(daemon: Daemon) -> None:
    """Root may run what anybody may: a file without any x is for nobody."""
    where = daemon.path("bin")
    os.mkdir(where)
    for name, mode in (("runs", 0o755), ("plain", 0o644)):
        with open(os.path.join(where, name), "w") as file:
            file.write("#!/bin/sh\necho ran\n")
        os.chmod(file.name, mode)
    with daemon.client() as client:
        for argv, more, why in (
            (["no-such-program"], {}, "program not found: 'no-such-program'; searched /"),
            (["./runs"], {}, "program not found: './runs'"),
            (["plain"], {"env": {"PATH": where}}, f"may not run '{where}/plain'"),
            ([where], {}, "program not found"),
            (["cat"], {"stdin": daemon.path("missing")}, "cannot read '.*missing'"),
        ):
            with pytest.raises(BadArguments, match=why):
                client.submit("command", {"argv": argv, **more})
        assert client.tasks() == []
        for argv, more in ((["./runs"], {"cwd": where}), (["runs"], {"env": {"PATH": where}})):
            assert client.submit("command", {"argv": argv, **more}).result(30) == 0


def test_a_program_has_its_environment_umask_nice_value_and_input_and_wait_shows_its_output(
    daemon: Daemon,
) -> None:
    with open(daemon.path("input"), "w") as file:
        file.write("from the file\n")
    script = "umask; nice; echo $COLOUR; cat"
    options = ("--env", "COLOUR=red=blue", "--umask", "027", "--nice", 7, "--stdin", "input")
    said = daemon.said("run", "--wait", *options, "--", "sh", "-c", script)
    task, *lines = said.splitlines()
    assert lines[0] in ("0027", "027") and lines[1:] == ["7", "red=blue", "from the file"]
    assert daemon.task_log(int(task)).splitlines() == lines
    for wrong in (
        ("--env", "X"),
        ("--umask", "9"),
        ("--nice", "-3"),
        ("--env", "A=1", "--env", "A=2"),
    ):
        assert daemon.taskctl("run", *wrong, "--", "true").returncode == 2
    failed = daemon.taskctl("run", "--wait", "--", "sh", "-c", "echo out; exit 3")
    assert failed.returncode == 4 and failed.stdout.endswith("\nout\n")
