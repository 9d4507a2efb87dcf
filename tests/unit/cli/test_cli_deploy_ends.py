"""taskctl deploy interrupted, unheard or not alone, and rollback."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import threading
from typing import Any

import pytest
from cli_daemon import Daemon, Run, signal_asleep, spawn
from cli_site import ANSWER, LINE, PLAN, REASON, Behind, Site, behind, refuse

from taskd.errors import DeployRefused, Refused


def test_a_lost_verdict_keeps_the_symlink_if_the_release_serves(
    run: Run, daemon: Daemon, site: Site
) -> None:
    def lost(fields: dict[str, Any]) -> dict[str, Any]:
        site.deployed(fields)
        daemon.hang_up()
        return {}

    daemon.answers["reload"] = lost
    status, out, err = run("deploy", str(site.release("r42")))
    assert (status, out) == (1, "")
    assert f"{site.release('r42')} serves, so {site.link} stays as it is" in err
    assert site.target == str(site.release("r42"))


def test_a_lost_verdict_switches_back_if_the_old_release_serves(
    run: Run, daemon: Daemon, site: Site
) -> None:
    daemon.answers["reload"] = lambda fields: daemon.hang_up() or {}
    status, _, err = run("deploy", str(site.release("r42")))
    assert status == 1
    assert f"{site.link} points to {site.release('r41')} again" in err
    assert site.target == str(site.release("r41"))


def test_an_error_in_telling_is_none_of_the_deed(run: Run, daemon: Daemon, site: Site) -> None:
    """As of a daemon whose answer was too large: the release serves all the same."""

    def untold(fields: dict[str, Any]) -> None:
        site.deployed(fields)
        raise Refused("the answer does not fit")

    daemon.answers["reload"] = untold
    status, out, err = run("deploy", str(site.release("r42")))
    assert (status, out) == (0, "")
    assert "it is deployed, but how it went could not be told: the answer does not fit" in err
    assert site.target == str(site.release("r42"))


def test_an_error_that_says_nothing_is_one_if_the_old_release_serves(
    run: Run, daemon: Daemon, site: Site
) -> None:
    def fail(fields: dict[str, Any]) -> None:
        raise Refused("something else")

    daemon.answers["reload"] = fail
    status, _, err = run("deploy", str(site.release("r42")))
    assert (status, "something else" in err) == (1, True)
    assert site.target == str(site.release("r41"))


def test_who_may_not_deploy_is_told_before_anything_is_touched(
    run: Run, daemon: Daemon, site: Site
) -> None:
    known = daemon.answers["status"]
    daemon.answers["status"] = lambda fields: known(fields) | {"control": False}
    told = "taskctl: only an operator may do this (by control.sock)\n"
    assert run("deploy", str(site.release("r42"))) == (1, "", told)
    assert "reload" not in [op for op, _ in daemon.seen]


def ended_by(daemon: Daemon, number: int, *words: str) -> tuple[int, str, str]:
    """taskctl, ended by a signal while it waits for its reload."""
    with spawn(daemon, *words) as ran:
        daemon.wait_for("reload")
        signal_asleep(ran, number)
        out, err = ran.communicate(timeout=60)
    return ran.returncode, out.decode(), err.decode()


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_an_interrupted_deploy_is_given_up_and_switched_back(
    daemon: Daemon, site: Site, gate: threading.Event, number: int, status: int
) -> None:
    daemon.answers["reload"] = behind(gate, lambda fields: ANSWER)
    assert ended_by(daemon, number, "deploy", str(site.release("r42"))) == (
        status,
        "",
        f"taskctl: {site.link} points to {site.release('r41')} again\n",
    )
    assert site.target == str(site.release("r41"))
    assert site.leftovers == []


def test_an_interrupt_that_came_too_late_keeps_the_symlink(
    daemon: Daemon, site: Site, gate: threading.Event
) -> None:
    serves = threading.Event()

    def confirmed(fields: dict[str, Any]) -> dict[str, Any]:
        site.serves = site.release("r42")
        serves.set()
        assert gate.wait(60)
        return ANSWER

    daemon.answers["reload"] = confirmed
    with spawn(daemon, "deploy", str(site.release("r42"))) as ran:
        assert serves.wait(60)
        signal_asleep(ran, signal.SIGINT)
        _, err = ran.communicate(timeout=60)
    assert ran.returncode == 130
    assert b"stays as it is" in err
    assert site.target == str(site.release("r42"))


def test_a_caller_that_was_told_to_ignore_a_hangup_does(
    daemon: Daemon, site: Site, gate: threading.Event
) -> None:
    daemon.answers["reload"] = behind(gate, site.deployed)

    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    with spawn(daemon, "deploy", str(site.release("r42")), preexec_fn=ignore) as ran:
        daemon.wait_for("reload")
        signal_asleep(ran, signal.SIGHUP)
        gate.set()
        out, _ = ran.communicate(timeout=60)
    assert (ran.returncode, out.decode()) == (0, LINE)


# ── two at once ──────────────────────────────────────────────────────────────────────────────


def other_deploy(daemon: Daemon, site: Site) -> subprocess.Popen[bytes]:
    """Another taskctl that has switched the symlink and waits for its verdict."""
    other = spawn(daemon, "deploy", str(site.release("r42")))
    daemon.wait_for("reload")
    return other


def test_a_second_deploy_of_another_release_leaves_the_symlink_alone(
    run: Run, daemon: Daemon, site: Site, gate: threading.Event
) -> None:
    (site.release("r43")).mkdir()
    first = behind(gate, site.deployed)

    def answer(fields: dict[str, Any]) -> dict[str, Any]:
        if fields["release"] == str(site.release("r42")):
            return first(fields)
        raise DeployRefused("a deploy of r42 is under way")

    daemon.answers["reload"] = answer
    with other_deploy(daemon, site) as other:
        refused = (1, "", "taskctl: a deploy of r42 is under way\n")
        assert run("deploy", str(site.release("r43"))) == refused
        assert site.target == str(site.release("r42"))
        gate.set()
        assert other.communicate(timeout=60)[0].decode() == LINE
    assert site.target == str(site.release("r42"))


def test_a_deploy_that_overtakes_another_lets_the_symlink_follow(
    run: Run, daemon: Daemon, site: Site, gate: threading.Event
) -> None:
    """The first has switched the symlink, but the second's request came before its own."""
    (site.release("r43")).mkdir()

    def answer(fields: dict[str, Any]) -> dict[str, Any]:
        if fields["release"] == str(site.release("r42")):
            assert gate.wait(60)
            raise DeployRefused("a deploy of r43 is under way")
        site.serves = site.release("r43")
        gate.set()
        return ANSWER | {"revision": "r43"}

    daemon.answers["reload"] = answer
    with other_deploy(daemon, site) as other:
        status, out, err = run("deploy", str(site.release("r43")))
        assert other.wait(60) == 1
    assert (status, out[:10]) == (0, "r43 serves")
    assert f"{site.link} points to {site.release('r43')} now" in err
    assert site.target == str(site.release("r43"))


def test_a_lock_that_another_program_holds_is_no_deadlock(
    run: Run, daemon: Daemon, site: Site
) -> None:
    """Whoever locks the directory for long: the deploy is done, and its end waits for nobody."""
    held = os.open(site.base, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    try:
        daemon.answers["reload"] = refuse
        assert run("deploy", str(site.release("r42"))) == (1, "", f"taskctl: {REASON}\n")
    finally:
        os.close(held)
    assert site.target == str(site.release("r41"))


# ── rollback ─────────────────────────────────────────────────────────────────────────────────


def rolled_back(site: Site) -> Behind:
    def answer(fields: dict[str, Any]) -> dict[str, Any]:
        site.serves = site.release("r41")
        return {"revision": "r41", "previous": "r42", "pause": 0.05, "plan": None}

    return answer


BACK = "r41 serves (r42 drains); pause 50 ms\n"


def test_a_rollback_switches_the_symlink_to_what_serves_again(
    run: Run, daemon: Daemon, site: Site
) -> None:
    assert run("deploy", str(site.release("r42")))[0] == 0
    daemon.answers["rollback"] = rolled_back(site)
    said = f"taskctl: {site.link} points to {site.release('r41')} now\n"
    assert run("rollback") == (0, BACK, said)
    assert site.target == str(site.release("r41"))
    assert run("rollback", "--allow-held") == (0, BACK, "")
    assert [fields for op, fields in daemon.seen if op == "rollback"] == [{}, {"allow_held": True}]


def test_a_rollback_is_done_although_the_symlink_cannot_follow(
    run: Run, daemon: Daemon, site: Site
) -> None:
    site.link.unlink()
    site.link.mkdir()
    daemon.answers["rollback"] = rolled_back(site)
    status, out, err = run("rollback")
    assert (status, out) == (0, BACK)
    assert "it is not a symlink" in err


def test_a_refused_rollback_and_a_plan_leave_the_symlink(
    run: Run, daemon: Daemon, site: Site
) -> None:
    site.serves = site.release("r42")  # the symlink names another release than what serves
    daemon.answers["rollback"] = refuse
    assert run("rollback") == (1, "", f"taskctl: {REASON}\n")
    daemon.answers["rollback"] = lambda fields: {"plan": PLAN}
    assert run("rollback", "--plan")[::2] == (0, "")
    assert site.target == str(site.release("r41"))
