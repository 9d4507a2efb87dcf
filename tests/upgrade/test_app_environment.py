"""The app's environment is the deploy's: ``[app] env`` and ``env_file``, read anew each time."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import pytest
from support.daemon import Daemon
from support.waiting import eventually

from taskd.errors import DeployRefused

APP = """
import os, subprocess
from side import gate, mark
from taskd import task

AT_IMPORT = {name: os.environ.get(name) for name in ("A", "B", "C")}
os.environ["OF_THE_IMPORT"] = os.environ.get("OF_THE_IMPORT", "") + "x"

@task
def told():
    program = subprocess.run(["env"], capture_output=True, text=True, check=True).stdout
    of_program = dict(line.split("=", 1) for line in program.splitlines() if "=" in line)
    names = ("A", "B", "C", "OF_THE_IMPORT", "PATH")
    return [AT_IMPORT, {n: os.environ.get(n) for n in names}, {n: of_program.get(n) for n in names}]

@task
def stays():
    mark("begun")
    gate("go")
    return os.environ.get("A")
"""

SECRETS = ("hunter1", "hunter2", "hunter3")


@pytest.fixture(params=["auto", "never"])
def fork(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon], fork: str) -> Daemon:
    """Not started yet. Neither its log nor its state may show a value where others could look."""
    made = new_daemon(app={"fork": fork})
    return made.with_releases(APP, "r1", "r2")


def given(daemon: Daemon, file: str | None = None, **keys: object) -> None:
    """The file and ``[app]`` say this from now on."""
    if file is not None:
        keys["env_file"] = daemon.path("env")
        with open(daemon.path("env"), "w", encoding="utf-8") as made:
            made.write(file)
        os.chmod(daemon.path("env"), 0o600)
    tables = {name: value for name, value in keys.items() if isinstance(value, dict)}
    rest = {name: value for name, value in keys.items() if name not in tables}
    fork = daemon.sections["app"]["fork"]
    daemon.sections["app"] = {"fork": fork, **rest, **tables}
    daemon.write_config()


def told(daemon: Daemon) -> dict[str, str | None]:
    """The variables in a task, which are those at import and of a program; without PATH."""
    with daemon.client() as client:
        at_import, in_task, in_program = client.submit("told").result(30)
    assert in_task == in_program
    assert in_task["OF_THE_IMPORT"] == "x", "an import's own changes do not add up"
    assert {name: in_task[name] for name in at_import} == at_import
    return dict(at_import)


def test_each_deploy_reads_it_anew_and_a_variable_that_is_gone_is_gone(daemon: Daemon) -> None:
    given(daemon, "A=1\nB=hunter1\n", env={"C": "of env"})
    daemon.extra = {"A": "of the service"}
    daemon.start()
    assert told(daemon) == {"A": "1", "B": "hunter1", "C": "of env"}
    given(daemon, "B=hunter2\n")
    assert told(daemon) == {"A": "1", "B": "hunter1", "C": "of env"}, "not before a deploy"
    plan = daemon.reload("r2")["plan"]
    assert plan["environment"] == {"changed": ["B"], "gone": ["A", "C"]}
    assert told(daemon) == {"A": "of the service", "B": "hunter2", "C": None}
    assert not any(secret in daemon.log() for secret in SECRETS)


def test_the_same_release_with_another_environment_is_another_revision(daemon: Daemon) -> None:
    given(daemon, env={"A": "1"})
    daemon.start()
    with daemon.client() as client:
        running = client.submit("stays")
        daemon.reached(running.id, "begun")
        first = daemon.zygotes()["r1"]
        assert daemon.reload("r1")["plan"]["environment"] == {}
        assert daemon.zygotes()["r1"] == first, "nothing has changed: a ping"
        given(daemon, env={"A": "2"})
        assert client.reload(plan=True)["plan"]["environment"] == {"changed": ["A"]}
        daemon.reload("r1")
        assert daemon.zygotes()["r1"] != first
        assert told(daemon)["A"] == "2"
        states = sorted(each["state"] for each in client.revisions())
        assert states == ["current", "draining"]
        (check,) = (c for c in client.status()["checks"] if c["name"] == "environment")
        assert check["text"] == "r1 has A of [app] env and env_file; r1 (draining) differs in A"
        daemon.open_gate("go")
        assert running.result(30) == "1", "an old worker keeps its own"
        eventually(lambda: len(client.revisions()) == 1, "the old revision goes")


def test_a_file_that_cannot_be_used_refuses_the_deploy(daemon: Daemon) -> None:
    given(daemon, env={"A": "1"})
    daemon.start()
    given(daemon, "A=2\nB=hunter3 $x\n")
    with pytest.raises(DeployRefused, match=r"/env: line 2: B has a blank: systemd") as caught:
        daemon.reload("r2")
    assert "hunter3" not in str(caught.value)
    os.unlink(daemon.path("env"))
    with pytest.raises(DeployRefused, match=r"env_file: cannot read .*/env as user"):
        daemon.reload("r2")
    assert told(daemon)["A"] == "1"
    assert "hunter3" not in daemon.log()


def test_a_file_that_anybody_may_read_is_warned_of(daemon: Daemon) -> None:
    daemon.start()
    given(daemon, "A=1\n")
    os.chmod(daemon.path("env"), 0o644)
    (why,) = daemon.reload("r2")["plan"]["warnings"]
    assert "anybody here may read" in why
    assert why in daemon.log()


def test_the_releases_python_comes_first_on_the_path(daemon: Daemon) -> None:
    given(daemon, env={"PATH": "/opt/shop/bin:/bin"})
    daemon.start()
    with daemon.client() as client:
        _, in_task, _ = client.submit("told").result(30)
        found = in_task["PATH"].split(":")
        own = [os.path.dirname(sys.executable)] if sys.prefix != sys.base_prefix else []
        assert found[: len(own) + 2] == [*own, "/opt/shop/bin", "/bin"]
        assert "/usr/bin" in found, "the rest of what a program may expect"
        program = client.submit("command", {"argv": ["sh", "-c", "command -v python; echo $PATH"]})
        program.result(30)
        where, path = daemon.task_log(program.id).splitlines()
        assert path == in_task["PATH"]
        assert not own or where == os.path.join(own[0], "python")


def test_hooks_have_the_environment_of_the_release_that_they_are_for(daemon: Daemon) -> None:
    given(daemon, env={"A": "1"})
    line = 'echo "$A of $TASKD_REVISION" >> ../../{}'
    daemon.sections["hooks"] = {n: line.format(n) for n in ("before", "after_drain")}
    daemon.write_config()
    daemon.start()
    given(daemon, env={"A": "2"})
    daemon.reload("r2")
    eventually(lambda: "hook done hook=after_drain" in daemon.log(), "after_drain has run")
    for name in ("before", "after_drain"):
        with open(daemon.path(name), encoding="utf-8") as file:
            assert file.read() == "2 of r2\n"
