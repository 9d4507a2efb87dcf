"""taskctl deploy: a small daemon on a real socket, and real symlinks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from cli_daemon import Daemon, Run, objects
from cli_site import HELD, LINE, REASON, Site, deploys, refuse

from taskd.errors import DeployRefused, NotAllowed


def test_deploy_switches_the_symlink_and_then_reloads(run: Run, daemon: Daemon, site: Site) -> None:
    assert run("deploy", str(site.release("r42"))) == (0, LINE, "")
    assert deploys(daemon) == [{"release": str(site.release("r42"))}]
    assert site.target == str(site.release("r42"))
    assert site.leftovers == []


def test_a_path_is_taken_from_where_the_caller_stands(
    run: Run, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    for where, word in (
        (site.base, "releases/r42"),
        (site.base, "./releases/../releases/r42/"),
        (site.base / "releases", "r42"),
        (site.release("r42"), "."),
    ):
        monkeypatch.chdir(where)
        site.link.unlink()
        site.link.symlink_to(site.release("r41"))
        assert run("deploy", word) == (0, LINE, ""), word
        assert site.target == str(site.release("r42"))


def test_a_bare_name_that_is_not_here_is_a_sibling_of_the_present_release(
    run: Run, site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    found = site.release("r42")
    said = f"taskctl: r42 is {found}, beside what {site.link} points to\n"
    assert run("deploy", "r42") == (0, LINE, said)
    assert site.target == str(found)


@pytest.mark.parametrize("word", ["r43", "releases/r42", "file", ""])
def test_a_release_that_is_not_there_changes_nothing(
    run: Run, daemon: Daemon, site: Site, monkeypatch: pytest.MonkeyPatch, word: str, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    status, out, err = run("deploy", word)
    assert (status, out) == (1, "")
    assert f"there is no release directory at {tmp_path / word}" in err
    assert (str(site.release("r43")) in err) == (word == "r43")
    assert deploys(daemon) == []
    assert site.target == str(site.release("r41"))


def test_a_relative_symlink_stays_relative(run: Run, site: Site) -> None:
    site.link.unlink()
    site.link.symlink_to("releases/r41")
    assert run("deploy", str(site.release("r42")))[0] == 0
    assert site.target == "releases/r42"


def test_a_relative_symlink_in_a_symlinked_directory_leads_to_the_release(
    run: Run, daemon: Daemon, site: Site, tmp_path: Path
) -> None:
    deep = tmp_path / "deep" / "er"
    deep.mkdir(parents=True)
    (site.base / "alias").symlink_to(deep)
    (deep / "current").symlink_to("../../srv/releases/r41")
    site.link = site.base / "alias" / "current"
    assert run("deploy", str(site.release("r42")))[0] == 0
    assert site.target == "../../srv/releases/r42"


def test_a_refused_deploy_switches_back_with_the_reason(
    run: Run, daemon: Daemon, site: Site
) -> None:
    site.link.unlink()
    site.link.symlink_to("releases/r41")
    for error in (DeployRefused(REASON), NotAllowed("only an operator may do this")):

        def refused(fields: dict[str, Any], error: Exception = error) -> None:
            assert site.target == "releases/r42"
            raise error

        daemon.answers["reload"] = refused
        assert run("deploy", str(site.release("r42"))) == (
            1,
            "",
            f"taskctl: {site.link} points to releases/r41 again\ntaskctl: {error}\n",
        )
        assert site.target == "releases/r41"
        assert site.leftovers == []


def test_what_someone_else_made_of_the_symlink_meanwhile_is_left(
    run: Run, daemon: Daemon, site: Site
) -> None:
    def refused(fields: dict[str, Any]) -> None:
        site.link.unlink()
        site.link.symlink_to("elsewhere")
        raise DeployRefused(REASON)

    daemon.answers["reload"] = refused
    status, _, err = run("deploy", str(site.release("r42")))
    assert status == 1
    assert "was changed by someone else meanwhile" in err
    assert site.target == "elsewhere"


def test_a_symlink_that_leads_there_already_is_not_touched(
    run: Run, daemon: Daemon, site: Site
) -> None:
    site.link.unlink()
    site.link.symlink_to("releases/../releases/r41")
    assert run("deploy", str(site.release("r41")))[0] == 0
    daemon.answers["reload"] = refuse
    assert run("deploy", str(site.release("r41"))) == (1, "", f"taskctl: {REASON}\n")
    assert site.target == "releases/../releases/r41"


@pytest.mark.parametrize("kind", ["directory", "file", "nothing"])
def test_what_is_no_symlink_is_not_switched(
    run: Run, daemon: Daemon, site: Site, kind: str
) -> None:
    site.link.unlink()
    if kind == "directory":
        site.link.mkdir()
    elif kind == "file":
        site.link.touch()
    status, out, err = run("deploy", str(site.release("r42")))
    assert (status, out) == (1, "")
    assert str(site.link) in err
    assert ("there is no symlink" if kind == "nothing" else "it is not a symlink") in err
    assert deploys(daemon) == []
    assert not site.link.is_symlink()


def test_a_symlink_that_cannot_be_switched_is_as_it_was(
    run: Run, daemon: Daemon, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(source: str, target: str) -> None:
        raise PermissionError(13, "Permission denied")

    for call in ("symlink", "rename"):
        with monkeypatch.context() as patched:
            patched.setattr(os, call, no_room)
            status, out, err = run("deploy", str(site.release("r42")))
        assert (status, out) == (1, "")
        assert err.count("\n") == 1
        assert f"cannot switch {site.link}" in err
        assert "Permission denied" in err
        assert site.target == str(site.release("r41"))
        assert site.leftovers == []
    assert deploys(daemon) == []


def test_a_plan_of_a_path_changes_nothing(run: Run, daemon: Daemon, site: Site) -> None:
    daemon.answers["reload"] = lambda fields: {"plan": HELD}
    status, out, err = run("deploy", "--plan", str(site.release("r42")))
    assert (status, out.splitlines()[0][:4]) == (1, "r42:")
    assert "--allow-held" in err
    assert run("deploy", "--plan", "--allow-held", "--json", str(site.release("r42")))[0] == 0
    assert deploys(daemon)[0] == {"release": str(site.release("r42")), "plan": True}
    assert site.target == str(site.release("r41"))


def test_deploy_passes_on_allow_held_and_prints_json(run: Run, daemon: Daemon, site: Site) -> None:
    status, out, err = run("deploy", str(site.release("r42")), "--allow-held", "--json")
    assert (status, err) == (0, "")
    assert [each["revision"] for each in objects(out)] == ["r42"]
    assert deploys(daemon) == [{"release": str(site.release("r42")), "allow_held": True}]


def test_deploy_without_a_daemon_is_3_and_changes_nothing(run: Run, site: Site) -> None:
    none = str(site.base / "none.sock")
    assert run("--socket", none, "deploy", str(site.release("r42")))[0] == 3
    assert site.target == str(site.release("r41"))


def test_a_daemon_that_does_not_tell_its_symlink_changes_nothing(
    run: Run, daemon: Daemon, site: Site
) -> None:
    daemon.answers["status"] = lambda fields: {"symlink": str(site.release("r41"))}
    status, _, err = run("deploy", str(site.release("r42")))
    assert status == 1
    assert "taskctl reload" in err
    assert site.target == str(site.release("r41"))


def test_wrong_usage_of_a_deploy_is_2_and_asks_nothing(run: Run, daemon: Daemon) -> None:
    for words in (["deploy"], ["deploy", "a", "b"], ["reload", "r1"], ["rollback", "r1"]):
        assert run(*words)[0] == 2, words
    assert daemon.seen == []
