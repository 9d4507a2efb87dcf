"""What is proved is what starts: a start, a rollback and a new zygote go by what a deploy has read
and proved, never by the files as they are now."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest
from support import processes
from support.daemon import Daemon
from support.waiting import eventually

import taskd
from taskd.errors import DeployRefused

APP = """
import os
from side import gate, mark
from taskd import task

@task
def told():
    return ["REVISION", os.environ.get("A")]

@task
def stays():
    mark("begun")
    gate("go")
    return os.environ.get("A")
"""


class WithFault(Daemon):
    def environment(self) -> dict[str, str]:
        return super().environment() | {"TASKD_FAULT": self.path("fault")}

    def says(self, value: str | None, **keys: object) -> None:
        """From now on the environment file has that value of A; None: there is no such file."""
        self.sections["app"] = {"env_file": self.path("env"), **keys}
        self.write_config()
        if value is None:
            os.unlink(self.path("env"))
            return
        with open(self.path("env"), "w", encoding="utf-8") as file:
            file.write(f"A={value}\n")
        os.chmod(self.path("env"), 0o600)

    def told(self) -> list[str]:
        """The release and the A that a task finds."""
        with self.client() as client:
            found: list[str] = client.submit("told").result(30)
        return found

    def rollback(self) -> dict[str, object]:
        with self.client() as client:
            found: dict[str, object] = client.rollback()
        return found

    def kept(self) -> list[str]:
        return sorted(os.listdir(self.path("state", "proved")))


@pytest.fixture
def daemon(new_daemon: Callable[..., WithFault]) -> WithFault:
    """r1 serves with A=1."""
    made = new_daemon(kind=WithFault)
    made.with_releases(APP, "r1", "r2")
    made.says("1")
    made.start()
    assert made.told() == ["r1", "1"]
    return made


def test_a_start_uses_what_was_proved(daemon: WithFault) -> None:
    daemon.says("2")
    daemon.restart()
    assert daemon.told() == ["r1", "1"]
    daemon.says(None, modules=["not_there"], fork="never")
    daemon.kill_everything()
    daemon.start()
    assert daemon.told() == ["r1", "1"]
    assert "has another [app] modules, fork than was deployed; `taskctl reload` ta" in daemon.log()
    daemon.says("2")
    daemon.reload()
    daemon.kill_everything()
    daemon.start()
    assert daemon.told() == ["r1", "2"]


def test_a_start_that_the_operator_names_reads_the_files_anew(daemon: WithFault) -> None:
    daemon.says("2")
    daemon.stop()
    daemon.start("--release", daemon.path("releases", "r1"))
    assert daemon.told() == ["r1", "2"]
    daemon.says("3")
    daemon.restart()
    assert daemon.told() == ["r1", "2"], "which is what was proved last"


def test_a_start_without_what_was_kept_reads_the_files(daemon: WithFault) -> None:
    daemon.says("2")
    daemon.kill_everything()
    (name,) = daemon.kept()
    os.unlink(daemon.path("state", "proved", name))
    daemon.start()
    assert daemon.told() == ["r1", "2"]
    assert f"cannot read {daemon.path('state', 'proved', name)}" in daemon.log()
    assert len(daemon.kept()) == 1, "and keeps what it has proved now"


def test_a_rollback_goes_back_to_what_was_proved_whatever_the_files_say(daemon: WithFault) -> None:
    daemon.says("2")
    daemon.reload("r2")
    daemon.says(None)
    with open(daemon.path("taskd.toml"), "a", encoding="utf-8") as file:
        file.write("[nonsense\n")
    with pytest.raises(DeployRefused, match="is not valid TOML"):
        daemon.reload("r1")
    plan = daemon.rollback()["plan"]
    assert isinstance(plan, dict)
    assert plan["environment"] == {"changed": ["A"]}
    assert any("the daemon goes on with the configuration that it has" in w
               for w in plan["warnings"])  # fmt: skip
    assert daemon.told() == ["r1", "1"]
    daemon.rollback()
    assert daemon.told() == ["r2", "2"]
    assert len(daemon.kept()) == 2


def test_a_rollback_of_a_changed_environment_goes_back_to_the_one_before(
    daemon: WithFault,
) -> None:
    daemon.says("2")
    daemon.reload("r1")
    daemon.reload("r1")
    assert daemon.told() == ["r1", "2"]
    daemon.rollback()
    assert daemon.told() == ["r1", "1"]


def test_a_refused_environment_leaves_nothing(daemon: WithFault) -> None:
    before = daemon.kept()
    for value in ("2", "3"):
        daemon.says(value, modules=["not_there"])
        with pytest.raises(DeployRefused, match="does not import"):
            daemon.reload("r2")
    daemon.restart()
    assert daemon.told() == ["r1", "1"]
    assert daemon.kept() == before


def test_a_new_zygote_of_any_revision_has_what_its_revision_was_proved_with(
    daemon: WithFault,
) -> None:
    with daemon.client() as client:
        running = client.submit("stays")
        worker = daemon.reached(running.id, "begun").pid
        daemon.says("2")
        daemon.reload("r2")
        daemon.says("3")
        for name in ("r1", "r2"):
            zygote = daemon.zygotes()[name]
            os.kill(zygote, signal.SIGKILL)
        eventually(lambda: daemon.zygotes().get("r2") not in (None, zygote), "one for r2")
        assert daemon.told() == ["r2", "2"]
        daemon.kill()
        daemon.start()
        assert daemon.told() == ["r2", "2"]
        assert processes.is_alive(worker)
        daemon.open_gate("go")
        assert running.result(30) == "1"


STEPS = {
    "quiesce": "1",
    "exec": "1",
    "load": "1",
    "confirm": "1",
    "settle in": "2",
    "announce": "2",
}
"""A daemon that dies at the step goes on with that environment."""


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("release", ["r1", "r2"])
def test_a_daemon_that_dies_in_a_deploy_starts_with_the_environment_that_was_decided(
    daemon: WithFault, step: str, release: str
) -> None:
    daemon.says("2")
    with open(daemon.path("fault"), "w", encoding="utf-8") as file:
        file.write(f"{step} kill")
    daemon.point(release)
    with daemon.client(timeout=3.0) as client, pytest.raises(taskd.Error):
        client.reload()
    assert daemon.process is not None
    daemon.process.wait(30)
    daemon.says("3")
    daemon.start()
    value = STEPS[step]
    assert daemon.told() == [release if value == "2" else "r1", value]
    daemon.kill_everything()
    daemon.start()
    assert daemon.told()[1] == value
    daemon.reload(release)
    assert daemon.told() == [release, "3"]
