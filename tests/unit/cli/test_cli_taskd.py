"""taskd on the command line: what it refuses, and a real detached start and stop."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import taskd
from taskd.cli.taskd import main

COMMAND = "import sys; from taskd.cli.{0} import main; sys.exit(main())"


def ended(*words: str) -> int:
    try:
        return main(words)
    except SystemExit as end:  # argparse's way out
        return int(end.code or 0)


def test_python_m_taskd_is_the_command() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "taskd", "--version"], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout) == (0, f"taskd {taskd.__version__}\n")


@pytest.mark.parametrize("words", [[], ["walk"], ["run", "now"], ["run", "--config"]])
def test_wrong_usage_is_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(*words) == 2
    assert "usage: taskd" in capsys.readouterr().err


def test_without_any_configuration_it_says_where_one_may_be(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("TASKD_CONFIG", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr("taskd.config.SYSTEM_FILE", str(tmp_path / "system.toml"))
    assert ended("run") == 1
    assert "no configuration: name it with --config" in capsys.readouterr().err


class Site:
    """A release with one module, a configuration and directories of their own."""

    def __init__(self, base: Path, app: str) -> None:
        release = base / "r1"
        release.mkdir()
        (release / "detached_app.py").write_text(app)
        self.base = base
        self.config = base / "taskd.toml"
        self.config.write_text(
            f'[app]\nrelease = "{release}"\nmodules = ["detached_app"]\n'
            f'python = "{sys.executable}"\n'
        )
        self.environ = os.environ | {
            "STATE_DIRECTORY": str(base / "state"),
            "RUNTIME_DIRECTORY": str(base / "run"),
            "LOGS_DIRECTORY": str(base / "logs"),
            "TASKD_SOCKET": str(base / "run"),
        }

    def call(self, program: str, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", COMMAND.format(program), *words],
            env=self.environ,
            cwd=self.base,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def pidfd(self) -> int:
        return os.pidfd_open(int((self.base / "run" / "taskd.pid").read_text()))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path, "from taskd import task\n\n@task\ndef add(a, b):\n    return a + b\n")
    yield site
    try:
        pidfd = site.pidfd()
    except (FileNotFoundError, ProcessLookupError):
        return
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.close(pidfd)


def test_a_detached_daemon_serves_until_it_is_told_to_stop(site: Site) -> None:
    # a relative path is meant from where the caller stands, not from where a daemon does
    started = site.call("taskd", "run", "--detach", "--config", "taskd.toml")
    assert (started.returncode, started.stdout, started.stderr) == (0, "", "")
    pidfd = site.pidfd()
    found = json.loads(site.call("taskctl", "status", "--json").stdout)
    assert found["pid"] == int((site.base / "run" / "taskd.pid").read_text())
    added = site.call("taskctl", "submit", "--wait", "--json", "add", "a=2", "b=3")
    assert json.loads(added.stdout)["result"] == 5
    second = site.call("taskd", "run", "--detach", "--config", "taskd.toml")
    assert second.returncode == 1
    assert f"pid {found['pid']}" in second.stderr
    signal.pidfd_send_signal(pidfd, signal.SIGTERM)
    assert select.select([pidfd], [], [], 60)[0], "the daemon did not stop"
    (site.base / "run" / "taskd.pid").unlink(missing_ok=True)
    os.close(pidfd)


def test_a_detached_start_of_an_app_that_does_not_import_gives_the_reason(site: Site) -> None:
    (site.base / "r1" / "detached_app.py").write_text("import no_such_module\n")
    started = site.call("taskd", "run", "--detach", "--config", "taskd.toml")
    assert started.returncode == 1
    assert "No module named 'no_such_module'" in started.stderr


@pytest.mark.parametrize("detached", [[], ["--detach"]])
def test_a_wrong_configuration_is_1_with_file_and_key(site: Site, detached: list[str]) -> None:
    site.config.write_text("[app]\nreleas = '/srv'\n")
    ran = site.call("taskd", "run", *detached, "--config", "taskd.toml")
    assert ran.returncode == 1
    assert "taskd.toml: unknown key app.releas: did you mean release?" in ran.stderr
