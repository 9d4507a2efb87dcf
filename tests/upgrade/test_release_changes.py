"""A release that changes, or goes, while it is deployed: a start would need it as it was proven."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from support.daemon import Daemon
from support.waiting import eventually

from taskd.errors import DeployRefused

APP = """
from side import gate, mark
from taskd import task

@task
def which() -> str:
    return "REVISION"

@task
def stays() -> str:
    with open("app.log", "a") as file:
        print("REVISION", file=file)
    mark("begun")
    gate("go")
    return "REVISION"
"""

SLOW = """
import os
from side import gate
open(os.path.join(os.environ["TASKD_TEST_GATES"], "importing"), "w").close()
gate("import")
"""


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    """Not started yet: each test says first which hooks there are."""
    made = new_daemon()
    return made.with_releases(APP, "r1", "r2")


def started(daemon: Daemon, **hooks: str) -> Daemon:
    daemon.sections["hooks"] = dict(hooks)
    daemon.write_config()
    return daemon.start()


def which(daemon: Daemon) -> str:
    with daemon.client() as client:
        return str(client.submit("which").result(30))


def confirmed(daemon: Daemon) -> str:
    with open(daemon.path("state", "confirmed"), encoding="utf-8") as file:
        return file.read()


def overwrite(release: str) -> None:
    with open(os.path.join(release, "app.py"), "w", encoding="utf-8") as file:
        file.write("this is no Python\n")


def add(release: str) -> None:
    with open(os.path.join(release, "late.py"), "w", encoding="utf-8"):
        pass


def lose(release: str) -> None:
    os.unlink(os.path.join(release, "side.py"))


NAMES = {overwrite: "app.py", add: "late.py", lose: "side.py"}


@pytest.mark.parametrize("change", [overwrite, add, lose])
def test_a_release_that_changes_while_it_is_imported_is_refused(
    daemon: Daemon, change: Callable[[str], None]
) -> None:
    """What was imported would serve, and what a restart finds would not even import."""
    started(daemon)
    before = confirmed(daemon)
    path = daemon.release("r3", SLOW + APP.replace("REVISION", "r3"))
    with daemon.raw() as raw:
        asked = raw.start("reload", release=path)
        eventually(lambda: os.path.exists(daemon.path("gates", "importing")), "it is imported")
        change(path)
        daemon.open_gate("import")
        with pytest.raises(
            DeployRefused,
            match=rf"r3 changed \({NAMES[change]}\) while it was being deployed.*whole",
        ):
            raw.reply_to(asked)
    assert (which(daemon), confirmed(daemon)) == ("r1", before)
    daemon.restart()
    assert which(daemon) == "r1"
    assert daemon.reload("r2")["revision"] == which(daemon) == "r2"


@pytest.mark.parametrize("how", ["rm -r", "mv -t ../../gates"])
def test_a_release_that_its_own_hook_takes_away_is_refused(daemon: Daemon, how: str) -> None:
    started(daemon, before=f'{how} "$TASKD_RELEASE"')
    before = confirmed(daemon)
    with pytest.raises(DeployRefused, match=r"there is no release directory at .*r2"):
        daemon.reload("r2")
    assert (which(daemon), confirmed(daemon)) == ("r1", before)
    daemon.restart()
    assert which(daemon) == "r1"


def test_a_hook_may_write_into_its_release(daemon: Daemon) -> None:
    """It is the release as the hook left it that is live then, and that a start goes by."""
    started(daemon, before='echo made > "$TASKD_RELEASE/made"')
    assert daemon.reload("r2")["revision"] == which(daemon) == "r2"
    assert os.path.exists(daemon.path("releases", "r2", "made"))
    daemon.sections["hooks"] = {}
    daemon.write_config()
    assert daemon.reload("r2")["revision"] == "r2", "its files have not changed since"
    daemon.restart()
    assert which(daemon) == "r2"
    assert "files of a live release have changed" not in daemon.log()


# ── a release that lives ─────────────────────────────────────────────────────────────────────────


def test_what_an_app_writes_into_its_release_makes_it_no_other(daemon: Daemon) -> None:
    started(daemon)
    client = daemon.client()
    running = client.submit("stays")
    daemon.reached(running.id, "begun")
    assert os.path.exists(daemon.path("releases", "r1", "app.log"))
    assert daemon.reload()["plan"]["warnings"] == []
    assert daemon.reload("r2")["revision"] == "r2"
    assert client.rollback()["revision"] == "r1"
    assert {each["revision"]: each["state"] for each in client.revisions()}["r1"] == "current"
    daemon.open_gate("go")
    assert running.result(30) == "r1"


def test_new_code_in_a_release_that_lives_is_refused_and_named(daemon: Daemon) -> None:
    started(daemon)
    add(daemon.path("releases", "r1"))
    overwrite(daemon.path("releases", "r1"))
    match = r"live revision, and its files changed \(app\.py, late\.py\)\. A release must not"
    with pytest.raises(DeployRefused, match=match):
        daemon.reload()
    assert which(daemon) == "r1"


def test_a_rollback_to_a_revision_that_lives_goes_whatever_its_files_are(daemon: Daemon) -> None:
    """In an emergency: its zygote has the code. What a restart will find is said."""
    started(daemon)
    client = daemon.client()
    running = client.submit("stays")
    daemon.reached(running.id, "begun")
    zygote = daemon.zygotes()["r1"]
    assert daemon.reload("r2")["revision"] == "r2"
    overwrite(daemon.path("releases", "r1"))
    answer = client.rollback()
    assert (answer["revision"], which(daemon), daemon.zygotes()["r1"]) == ("r1", "r1", zygote)
    (warning,) = answer["plan"]["warnings"]
    assert "changed (app.py) since it was started; a restart runs them" in warning
    daemon.open_gate("go")
    assert running.result(30) == "r1"
