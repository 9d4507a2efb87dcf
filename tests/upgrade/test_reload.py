"""A deploy as its users see it: who goes on where, and that a bad one changes nothing."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable

import pytest
from support import processes
from support.daemon import Daemon, repeated
from support.waiting import eventually

from taskd.errors import DeployRefused

APP = """
from taskd import task
from side import gate, mark, until_asked

@task
def stays(ctx, n: int) -> list:
    for i in ctx.each("items", range(n)):
        mark(i)
        if i == 0:
            gate("go")
        ctx.state["seen"] = ctx.state.get("seen", 0) + 1
    return [ctx.state["seen"], "REVISION"]

@task(on_deploy="checkpoint")
def moves(ctx, n: int) -> list:
    for i in ctx.each("items", range(n)):
        mark(i)
        if i == 0:
            until_asked(ctx)
        ctx.state["seen"] = ctx.state.get("seen", 0) + 1
    return [ctx.state["seen"], "REVISION"]

@task
def which() -> str:
    return "REVISION"
"""


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    made = new_daemon(app={"max_revisions": 2})
    return made.with_releases(APP, "r1", "r2").start()


def which(daemon: Daemon) -> str:
    """The release that serves fresh tasks, as one of them tells."""
    return str(daemon.client().submit("which").result(30))


def refused(daemon: Daemon, name: str | None = None) -> str:
    """Why the deploy of that release is refused; the daemon serves on with the one before."""
    before = daemon.client().status()["revision"]
    with pytest.raises(DeployRefused) as caught:
        daemon.reload(name)
    assert daemon.client().status()["revision"] == before == which(daemon)
    return str(caught.value)


def revisions(daemon: Daemon) -> dict[str, str]:
    return {each["revision"]: each["state"] for each in daemon.client().revisions()}


# ── who goes where ───────────────────────────────────────────────────────────────────────────


def test_a_finish_task_ends_on_its_old_code_and_a_checkpoint_task_moves_to_the_new(
    daemon: Daemon,
) -> None:
    client = daemon.client()
    stays, moves = client.submit("stays", {"n": 5}), client.submit("moves", {"n": 5})
    for each in (stays, moves):
        daemon.reached(each.id, "0")
    told = daemon.reload("r2")
    assert (told["revision"], told["previous"]) == ("r2", "r1")
    assert moves.result(30) == [5, "r2"]
    daemon.open_gate("go")
    assert stays.result(30) == [5, "r1"]
    assert daemon.items(stays.id) == daemon.items(moves.id) == ["0", "1", "2", "3", "4"]
    assert [e.revision for e in daemon.effects(moves.id)] == ["r1", "r2", "r2", "r2", "r2"]
    assert [e["reason"] for e in moves.follow() if e["reason"]] == ["interrupted: deploy of r2"]


def test_a_reload_to_a_draining_revision_promotes_it_and_keeps_two(daemon: Daemon) -> None:
    client = daemon.client()
    task = client.submit("stays", {"n": 3})
    daemon.reached(task.id, "0")
    zygote = daemon.zygotes()["r1"]
    daemon.reload("r2")
    assert revisions(daemon) == {"r1": "draining", "r2": "current"}
    daemon.reload("r1")
    assert which(daemon) == "r1"
    assert revisions(daemon)["r1"] == "current"
    assert daemon.zygotes()["r1"] == zygote, "the same, not imported anew"
    daemon.open_gate("go")
    assert task.result(30) == [3, "r1"]
    eventually(lambda: revisions(daemon) == {"r1": "current"}, "r2 has nothing to do")


def test_a_reload_of_what_serves_changes_nothing(daemon: Daemon) -> None:
    zygote = daemon.zygotes()["r1"]
    assert daemon.reload()["revision"] == "r1"
    assert revisions(daemon) == {"r1": "current"}
    assert daemon.zygotes()["r1"] == zygote
    assert which(daemon) == "r1"


def test_a_drained_revision_goes_with_its_zygote_and_can_be_deployed_again(
    daemon: Daemon,
) -> None:
    first = daemon.zygotes()["r1"]
    daemon.reload("r2")
    eventually(lambda: not processes.is_alive(first), "the zygote of r1 ends")
    eventually(lambda: revisions(daemon) == {"r2": "current"}, "r1 is forgotten")
    daemon.reload("r1")
    assert which(daemon) == "r1"


def test_sighup_deploys_what_the_symlink_names(daemon: Daemon) -> None:
    daemon.point("r2")
    daemon.kill(signal.SIGHUP)
    eventually(lambda: daemon.client().status()["revision"] == "r2", "r2 serves")
    assert which(daemon) == "r2"


def test_many_sighups_at_once_are_one_wish(daemon: Daemon) -> None:
    daemon.point("r2")
    for _ in range(50):
        daemon.kill(signal.SIGHUP)
    eventually(lambda: daemon.client().status()["revision"] == "r2", "r2 serves")
    assert which(daemon) == "r2"


def test_an_app_with_threads_at_import_gets_workers_that_are_spawned(daemon: Daemon) -> None:
    threads = "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True)"
    daemon.release("r3", APP.replace("REVISION", "r3") + f"\n{threads}.start()\n")
    daemon.reload("r3")
    client = daemon.client()
    tasks = [client.submit("stays", {"n": 3}) for _ in range(3)]
    for task in tasks:
        pid = daemon.reached(task.id, "0").pid
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            assert file.read().startswith(b"taskd: worker r3 task ")
        with open(f"/proc/{pid}/fd/0", "rb") as file:
            assert file.read() == b"", "descriptor 0 is /dev/null, as in forked ones"
    daemon.open_gate("go")
    assert [task.result(30) for task in tasks] == [[3, "r3"]] * 3
    assert "the app starts threads at import" in daemon.log()


# ── refusals ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("import nowhere_to_be_found", "No module named 'nowhere_to_be_found'"),
        ("def broken(:", "SyntaxError"),
        ("raise SystemExit('not today')", "SystemExit: not today"),
        (
            "import os; os._exit(9)",
            "its process ended while the app was importing: "
            "its process ended by itself with exit status 9",
        ),
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
            "while the app was importing: its process was killed by SIGKILL",
        ),
    ],
)
def test_a_release_that_does_not_import_leaves_the_old_one_serving(
    daemon: Daemon, source: str, why: str
) -> None:
    task = daemon.client().submit("stays", {"n": 3})
    daemon.reached(task.id, "0")
    daemon.release("bad", source)
    for _ in range(3):
        assert why in refused(daemon, "bad")
    daemon.open_gate("go")
    assert task.result(30) == [3, "r1"]
    eventually(lambda: set(daemon.zygotes()) == {"r1"}, "nothing of the bad release is left")
    assert daemon.reload("r2")["revision"] == "r2"


def test_a_release_that_lacks_a_task_that_waits_or_runs_is_refused(daemon: Daemon) -> None:
    daemon.release("r3", APP.replace("REVISION", "r3").replace("def stays", "def other"))
    running = daemon.client().submit("stays", {"n": 2})
    daemon.reached(running.id, "0")
    assert "(stays, running): there is no task 'stays'" in refused(daemon, "r3")
    daemon.open_gate("go")
    running.result(30)
    assert daemon.reload("r3")["revision"] == "r3"


def test_a_live_release_whose_files_have_changed_is_refused_with_what_to_do(
    daemon: Daemon,
) -> None:
    with open(daemon.path("releases", "r1", "app.py"), "a", encoding="utf-8") as file:
        file.write("\nextra = 1\n")
    why = refused(daemon, "r1")
    assert "its files changed (app.py)" in why
    assert "put the new code into a new directory" in why


def test_a_release_that_is_not_there_is_refused(daemon: Daemon) -> None:
    assert "there is no release directory at" in refused(daemon, "r9")


def test_a_wrong_configuration_refuses_the_deploy_and_a_right_one_is_read_anew(
    daemon: Daemon,
) -> None:
    daemon.sections["queues"] = {"default": {"concurrency": 0}}
    daemon.write_config()
    assert "queues.default.concurrency: expected a whole number" in refused(daemon, "r2")
    daemon.sections["queues"] = {"default": {"concurrency": 3}}
    daemon.write_config()
    daemon.reload("r2")
    assert daemon.client().status()["queues"]["default"]["concurrency"] == 3


def test_a_deploy_beyond_the_cap_is_refused_with_who_holds_what(daemon: Daemon) -> None:
    daemon.release("r3", APP.replace("REVISION", "r3"))
    task = daemon.client().submit("stays", {"n": 2})
    daemon.reached(task.id, "0")
    daemon.reload("r2")
    assert f"r1 is held by task {task.id} (stays)" in refused(daemon, "r3")
    daemon.open_gate("go")
    task.result(30)
    eventually(lambda: revisions(daemon) == {"r2": "current"}, "r1 has drained")
    assert daemon.reload("r3")["revision"] == "r3"


def test_a_second_reload_joins_for_the_same_release_and_is_refused_for_another(
    daemon: Daemon,
) -> None:
    source = "from side import gate\ngate('import')\n" + APP.replace("REVISION", "slow")
    daemon.release("slow", source)
    daemon.point("slow")
    with daemon.raw() as first, daemon.raw() as second, daemon.raw() as third:
        ids = [raw.start("reload") for raw in (first, second)]
        eventually(lambda: "slow" in daemon.zygotes(), "the deploy is under way")
        other = third.start("reload", release=daemon.path("releases", "r2"))
        with pytest.raises(DeployRefused, match=r"a deploy of .*/slow is under way"):
            third.reply_to(other)
        daemon.open_gate("import")
        told = [raw.reply_to(each) for raw, each in zip((first, second), ids, strict=True)]
    assert [each["revision"] for each in told] == ["slow", "slow"]
    assert which(daemon) == "slow"


# ── what a start uses ────────────────────────────────────────────────────────────────────────


def test_a_restart_uses_what_was_confirmed_and_not_the_symlink(daemon: Daemon) -> None:
    daemon.point("r2")
    daemon.restart()
    assert which(daemon) == "r1"
    status = daemon.client().status()
    assert status["confirmed"].endswith("/r1")
    assert status["symlink"].endswith("/r2")
    daemon.reload()
    daemon.point("r1")
    daemon.restart()
    assert which(daemon) == "r2"


def test_a_refused_deploy_does_not_come_alive_at_the_next_start(daemon: Daemon) -> None:
    daemon.release("bad", "raise ValueError('bad')")
    refused(daemon, "bad")
    daemon.kill()
    daemon.start()
    assert which(daemon) == "r1"


def test_the_file_confirmed_names_the_release_and_the_one_before(daemon: Daemon) -> None:
    daemon.reload("r2")
    with open(daemon.path("state", "confirmed"), encoding="utf-8") as file:
        found = json.load(file)
    assert found["release"] == daemon.path("releases", "r2")
    assert found["previous"] == daemon.path("releases", "r1")


def test_a_start_without_its_confirmed_release_says_what_to_do(daemon: Daemon) -> None:
    assert daemon.stop() == 0
    os.rename(daemon.path("releases", "r1"), daemon.path("releases", "away"))
    daemon.point("r2")
    assert daemon.spawn().wait(30) == 1
    assert "is gone; [app] release" in daemon.log()
    state, other = daemon.path("state"), daemon.path("releases", "r2")
    assert f"`taskd confirm --state {state} {other}`" in daemon.log()
    daemon.start("--release", daemon.path("releases", "r2"))
    assert which(daemon) == "r2"


def test_a_start_whose_release_is_gone_names_one_that_is_there(daemon: Daemon) -> None:
    daemon.reload("r2")
    assert daemon.stop() == 0
    state, before = daemon.path("state"), daemon.path("releases", "r1")
    os.rename(daemon.path("releases", "r2"), daemon.path("releases", "away"))  # the link's as well
    assert daemon.spawn().wait(30) == 1
    assert f"before it, {before}, is there" in daemon.log()
    assert f"`taskd confirm --state {state} {before}`" in daemon.log()
    os.rename(before, daemon.path("releases", "away too"))
    assert daemon.spawn().wait(30) == 1
    assert f"`taskd confirm --state {state} PATH`" in daemon.log()


def test_a_start_whose_release_does_not_import_exits_1_with_the_last_line(
    new_daemon: Callable[..., Daemon],
) -> None:
    daemon = new_daemon()
    daemon.with_releases("import nowhere_to_be_found", "r1")
    assert daemon.spawn().wait(30) == 1
    assert "ModuleNotFoundError: No module named 'nowhere_to_be_found'" in daemon.log()
    assert not os.path.exists(daemon.path("state", "confirmed"))
    assert repeated(daemon.effects()) == {}
