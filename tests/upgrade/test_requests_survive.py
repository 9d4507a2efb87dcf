"""One request's error is that request's: whatever it asks for or finds, the daemon serves on."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from support.daemon import Daemon
from support.raw import Raw

from taskd.errors import DeployRefused, Error, Refused

APP = """
from taskd import task

@task
def which() -> str:
    return "REVISION"
"""


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    made = new_daemon()
    return made.with_releases(APP, "r1", "r2").start()


def serves(daemon: Daemon) -> str:
    """The release that serves fresh tasks; the daemon is the process that was started."""
    with daemon.client() as client:
        assert client.status()["pid"] == daemon.pid
        return str(client.submit("which").result(30))


def asking(daemon: Daemon) -> Raw:
    """A connection that gives up on a daemon that hangs."""
    return Raw(daemon.control, within=20)


# ── paths ────────────────────────────────────────────────────────────────────────────────────


def test_a_release_path_with_a_nul_is_refused(daemon: Daemon) -> None:
    with asking(daemon) as raw:
        with pytest.raises(DeployRefused, match=r"cannot look at the release: .*null"):
            raw.ask("reload", release=daemon.path("releases", "r2") + "\0")
        assert raw.ask("status")["revision"] == "r1", "not even the connection is lost"
    assert serves(daemon) == "r1"
    assert daemon.reload("r2")["revision"] == serves(daemon) == "r2"


def test_status_answers_while_the_symlink_names_a_path_that_is_not_text(daemon: Daemon) -> None:
    os.unlink(daemon.path("current"))
    os.symlink(os.fsencode(daemon.path("releases")) + b"/r\xff", daemon.path("current"))
    with asking(daemon) as raw:
        found = raw.ask("status")
    assert found["symlink"] == daemon.path("releases", "r\\xff")
    assert (found["revision"], serves(daemon)) == ("r1", "r1")
    assert daemon.reload("r2")["revision"] == serves(daemon) == "r2"


# ── files that cannot be read ────────────────────────────────────────────────────────────────


def add(text: str) -> Callable[[str], None]:
    """At the end of the configuration."""

    def prepare(path: str) -> None:
        with open(path, "a", encoding="ascii") as file:
            file.write(text)

    return prepare


def pipe_instead(path: str) -> None:
    """A configuration that nobody ever writes."""
    os.unlink(path)
    os.mkfifo(path)


WRONG = {
    "nested too deep": (add("x = " + "[" * 20_000 + "\n"), "taskd.toml is not valid TOML: "),
    "with too long a number": (add("x = " + "9" * 5_000 + "\n"), "taskd.toml is not valid TOML: "),
    "that is a pipe": (pipe_instead, "taskd.toml is not a file"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_deploy_with_a_configuration_that_cannot_be_read_is_refused(
    daemon: Daemon, wrong: str
) -> None:
    prepare, told = WRONG[wrong]
    prepare(daemon.path("taskd.toml"))
    daemon.point("r2")
    with asking(daemon) as raw, pytest.raises(DeployRefused) as refused:
        raw.ask("reload")
    assert told in str(refused.value)
    assert "\n" not in str(refused.value), "one sentence"
    assert serves(daemon) == "r1"
    os.unlink(daemon.path("taskd.toml"))
    daemon.write_config()
    assert daemon.reload("r2")["revision"] == serves(daemon) == "r2"


def test_a_rollback_with_an_unreadable_file_confirmed_is_refused(daemon: Daemon) -> None:
    daemon.reload("r2")
    with open(daemon.path("state", "confirmed"), "r+", encoding="utf-8") as file:
        right = file.read()
        file.seek(0)
        file.truncate()
        file.write("{")
    with asking(daemon) as raw, pytest.raises(Error) as refused:
        raw.ask("rollback")
    assert isinstance(refused.value, Refused)
    assert "which names the release to start" in str(refused.value)
    assert serves(daemon) == "r2"
    with open(daemon.path("state", "confirmed"), "w", encoding="utf-8") as file:
        file.write(right)
    assert daemon.client().rollback()["revision"] == serves(daemon) == "r1"


# ── what an app says ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (r"'an odd \udcff byte'", "r3 does not import: ValueError: an odd ? byte"),
        ("'z' * 5_000_000 + ' and the end'", "zzz and the end"),
    ],
)
def test_an_import_error_that_no_message_can_carry_is_told_as_far_as_it_can(
    daemon: Daemon, raised: str, told: str
) -> None:
    daemon.release("r3", f"raise ValueError({raised})")
    with asking(daemon) as raw, pytest.raises(DeployRefused) as refused:
        raw.ask("reload", release=daemon.path("releases", "r3"))
    assert str(refused.value).startswith("r3 does not import: ")
    sentence, _, where = str(refused.value).rpartition(" (")
    assert sentence.endswith(told)
    assert where.endswith("app.py, line 1)")
    assert len(str(refused.value)) < 5_000
    assert serves(daemon) == "r1"
    assert daemon.reload("r2")["revision"] == serves(daemon) == "r2"
