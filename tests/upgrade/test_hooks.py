"""The app's own commands around a deploy: ``[hooks] before`` and ``after_drain``."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest
from support import processes
from support.daemon import Daemon
from support.waiting import eventually

from taskd.errors import DeployRefused

APP = """
from taskd import task
from side import gate, mark

@task
def stays(ctx, n: int) -> str:
    for i in ctx.each("items", range(n)):
        mark(i)
        if i == 0:
            gate("go")
    return "REVISION"

@task
def which() -> str:
    return "REVISION"
"""

NOTED = 'echo "$TASKD_REVISION $TASKD_RELEASE $TASKD_PREVIOUS $(pwd -P)" >> ../../{name}'
WAITS = "while [ ! -e ../../gates/{gate} ]; do sleep 0.01; done"


def noted(name: str) -> str:
    """A line for the shell: who it runs for is one more line in the file of that name."""
    return NOTED.format(name=name)


def waits(gate: str) -> str:
    """A line for the shell that ends when the test opens that gate."""
    return WAITS.format(gate=gate)


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    """Not started yet: each test says first which hooks there are."""
    made = new_daemon()
    return made.with_releases(APP, "r1", "r2", "r3")


def started(daemon: Daemon, **hooks: object) -> Daemon:
    daemon.sections["hooks"] = dict(hooks)
    daemon.write_config()
    return daemon.start()


def lines(daemon: Daemon, name: str) -> list[list[str]]:
    """What ``noted`` has written, words by line."""
    try:
        with open(daemon.path(name), encoding="utf-8") as file:
            return [line.split() for line in file]
    except FileNotFoundError:
        return []


def begun(daemon: Daemon, hook: str) -> int:
    """How often the daemon has begun to run that hook, whether or not it has written anything."""
    return daemon.log().count(f"hook hook={hook} ")


def of(daemon: Daemon, name: str, previous: str) -> list[str]:
    """The words of one such line for release ``name``."""
    path = daemon.path("releases", name)
    return [name, path, daemon.path("releases", previous), path]


def serves(daemon: Daemon) -> str:
    return str(daemon.client().submit("which").result(30))


def refused(daemon: Daemon, name: str) -> str:
    """Why its deploy is refused; r1 serves on."""
    with pytest.raises(DeployRefused) as caught:
        daemon.reload(name)
    assert daemon.client().status()["revision"] == serves(daemon) == "r1"
    return str(caught.value)


def pids(daemon: Daemon, name: str) -> list[int]:
    """The processes that wrote their pid into that file."""
    return [int(word) for line in lines(daemon, name) for word in line]


def until_gone(found: list[int]) -> None:
    eventually(lambda: not any(map(processes.is_alive, found)), f"{found} have ended")


# ── before ───────────────────────────────────────────────────────────────────────────────────


def test_before_runs_once_in_the_new_release_and_its_output_is_shown(daemon: Daemon) -> None:
    started(daemon, before=["sh", "-c", f"echo 'added a column'; echo slowly >&2; {noted('b')}"])
    assert begun(daemon, "before") == 0, "a start is no deploy"
    answer = daemon.reload("r2")
    assert answer["hook"] == "added a column\nslowly\n"
    assert lines(daemon, "b") == [of(daemon, "r2", "r1")]
    assert "before: added a column" in daemon.log()
    assert "hook done hook=before revision=r2" in daemon.log()
    assert serves(daemon) == "r2"


def test_a_deploy_without_a_hook_has_no_output_to_show(daemon: Daemon) -> None:
    daemon.start()
    assert daemon.reload("r2")["hook"] == ""


def test_before_is_the_one_of_the_configuration_as_it_is_at_the_deploy(daemon: Daemon) -> None:
    started(daemon, before="exit 1")
    refused(daemon, "r2")
    daemon.sections["hooks"] = {"before": "echo new"}
    daemon.write_config()
    assert daemon.reload("r2")["hook"] == "new\n"


def test_a_plan_runs_no_hook(daemon: Daemon) -> None:
    started(daemon, before=noted("b"))
    daemon.point("r2")
    assert daemon.client().reload(plan=True)["plan"]["target"] == "r2"
    assert begun(daemon, "before") == 0


def test_a_failing_before_refuses_the_deploy_with_its_status_and_its_last_lines(
    daemon: Daemon,
) -> None:
    script = "for i in 1 2 3 4 5 6 7; do echo line $i; done; echo no such table >&2; exit 3"
    started(daemon, before=script)
    assert refused(daemon, "r2") == (
        "r2: [hooks] before failed: it ended with exit status 3; the last of its output: "
        "line 4 | line 5 | line 6 | line 7 | no such table"
    )
    assert "before: line 1" in daemon.log(), "the log has it all"
    daemon.sections["hooks"] = {}
    daemon.write_config()
    assert daemon.reload("r2")["revision"] == serves(daemon) == "r2"


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("kill -9 $$", "it was killed by SIGKILL; it wrote nothing"),
        (["bin/missing"], "it ended with exit status 127; the last of its output: "),
    ],
)
def test_a_before_that_cannot_even_end_well_is_told_as_it_was(
    daemon: Daemon, command: object, told: str
) -> None:
    started(daemon, before=command)
    assert told in refused(daemon, "r2")


def test_a_before_that_is_not_done_in_time_is_killed_with_its_children(daemon: Daemon) -> None:
    script = f"echo $$ >> ../../p; (echo deeper; {waits('never')}) & echo $! >> ../../p; wait"
    started(daemon, before=script, timeout="2s")
    assert refused(daemon, "r2") == (
        "r2: [hooks] before failed: it was not done after 2 s ([hooks] timeout), and was "
        "killed; the last of its output: deeper"
    )
    found = pids(daemon, "p")
    assert len(found) == 2
    until_gone(found)


def test_what_before_leaves_behind_does_not_outlive_it(daemon: Daemon) -> None:
    started(daemon, before=f"({waits('never')}) & echo $! >> ../../p; echo done")
    assert daemon.reload("r2")["hook"] == "done\n"
    until_gone(pids(daemon, "p"))


def test_of_a_lot_of_output_the_end_is_kept(daemon: Daemon) -> None:
    started(daemon, before="yes 0123456789abcde | head -n 20000; echo the end")
    shown = daemon.reload("r2")["hook"]
    first, *rest = shown.splitlines()
    whole = 20_000 * 16 + len("the end\n")
    assert first == f"({whole - 64 * 1024} bytes before this were dropped)"
    assert rest[-1] == "the end"
    assert sum(len(line) + 1 for line in rest) == 64 * 1024


def test_the_daemon_serves_while_before_runs_and_a_second_caller_joins(daemon: Daemon) -> None:
    started(daemon, before=f"{noted('b')}; {waits('go')}; echo done")
    daemon.point("r2")
    with daemon.raw() as first, daemon.raw() as second, daemon.raw() as third:
        one = first.start("reload")
        eventually(lambda: lines(daemon, "b"), "the hook runs")
        two = second.start("reload")
        assert serves(daemon) == "r1"
        three = third.start("reload", release=daemon.path("releases", "r3"))
        with pytest.raises(DeployRefused, match="is under way"):
            third.reply_to(three)
        daemon.open_gate("go")
        told = [first.reply_to(one), second.reply_to(two)]
    assert [(each["revision"], each["hook"]) for each in told] == [("r2", "done\n")] * 2
    assert lines(daemon, "b") == [of(daemon, "r2", "r1")]


def test_before_is_killed_when_nobody_waits_for_the_deploy_any_more(daemon: Daemon) -> None:
    started(daemon, before=f"echo $$ >> ../../p; {waits('never')}")
    daemon.point("r2")
    with daemon.raw() as caller:
        caller.start("reload")
        eventually(lambda: pids(daemon, "p"), "the hook runs")
    until_gone(pids(daemon, "p"))
    eventually(lambda: "who asked for it went away" in daemon.client().status()["note"])
    assert serves(daemon) == "r1"
    daemon.sections["hooks"] = {}
    daemon.write_config()
    assert daemon.reload("r2")["revision"] == "r2"


def test_a_stop_kills_before_and_the_next_start_is_the_old_revision(daemon: Daemon) -> None:
    started(daemon, before=f"echo $$ >> ../../p; {waits('never')}")
    daemon.point("r2")
    with daemon.raw() as caller:
        number = caller.start("reload")
        eventually(lambda: pids(daemon, "p"), "the hook runs")
        daemon.kill(signal.SIGTERM)
        with pytest.raises((DeployRefused, OSError)):
            caller.reply_to(number)
    assert daemon.process is not None
    assert daemon.process.wait(30) == 0
    until_gone(pids(daemon, "p"))
    daemon.start()
    assert serves(daemon) == "r1"


def test_before_inherits_no_descriptor_of_the_daemon(daemon: Daemon) -> None:
    started(daemon, before="ls /proc/self/fd")
    # the three of its own, and the one by which ls reads the folder
    assert daemon.reload("r2")["hook"].split() == ["0", "1", "2", "3"]


# ── after_drain ──────────────────────────────────────────────────────────────────────────────


def test_after_drain_runs_once_when_the_last_task_of_an_older_revision_is_gone(
    daemon: Daemon,
) -> None:
    started(daemon, after_drain=f"{noted('a')}; echo dropped a column")
    client = daemon.client()
    tasks = [client.submit("stays", {"n": 2}) for _ in range(2)]
    for task in tasks:
        daemon.reached(task.id, "0")
    daemon.reload("r2")
    daemon.reload("r3")
    assert serves(daemon) == "r3"
    assert begun(daemon, "after_drain") == 0
    daemon.open_gate("go")
    assert [task.result(30) for task in tasks] == ["r1", "r1"]
    eventually(lambda: client.status()["note"] == "after_drain of r3 is done")
    assert lines(daemon, "a") == [of(daemon, "r3", "r2")]
    assert "after_drain: dropped a column" in daemon.log()
    assert serves(daemon) == "r3"
    assert not os.path.exists(daemon.path("state", "after-drain"))
    assert begun(daemon, "after_drain") == 1, "and not again"


def test_after_drain_runs_at_once_where_nothing_of_the_older_revision_is_left(
    daemon: Daemon,
) -> None:
    started(daemon, after_drain=noted("a"))
    assert begun(daemon, "after_drain") == 0, "a start is no deploy"
    daemon.reload("r1")
    daemon.reload("r2")
    eventually(lambda: lines(daemon, "a") == [of(daemon, "r2", "r1")])


def test_a_failing_after_drain_is_told_and_not_run_again(daemon: Daemon) -> None:
    started(daemon, after_drain=f"{noted('a')}; echo table is locked; exit 5")
    daemon.reload("r2")
    note = (
        "r2: [hooks] after_drain failed: it ended with exit status 5; the last of its output: "
        "table is locked"
    )
    eventually(lambda: daemon.client().status()["note"] == note)
    daemon.restart()
    assert serves(daemon) == "r2"
    assert begun(daemon, "after_drain") == 1
    assert lines(daemon, "a") == [of(daemon, "r2", "r1")]


def test_an_after_drain_that_is_due_survives_the_end_of_the_daemon(daemon: Daemon) -> None:
    started(daemon, after_drain=noted("a"))
    task = daemon.client().submit("stays", {"n": 2})
    daemon.reached(task.id, "0")
    daemon.reload("r2")
    worker = daemon.reached(task.id, "0").pid
    daemon.kill()
    daemon.start()
    assert serves(daemon) == "r2"
    assert processes.is_alive(worker), "it works on, without a daemon of its own"
    assert begun(daemon, "after_drain") == 0
    daemon.open_gate("go")
    assert task.result(30) in ("r1", "r2")
    eventually(lambda: lines(daemon, "a") == [of(daemon, "r2", "r1")])


def test_an_after_drain_that_the_daemons_end_cut_off_runs_again(daemon: Daemon) -> None:
    daemon.sections["daemon"] = {"stop_timeout": "300ms"}
    started(daemon, after_drain=f"{noted('a')}; echo $$ >> ../../p; {waits('go')}")
    daemon.reload("r2")
    eventually(lambda: pids(daemon, "p"), "the hook runs")
    assert daemon.stop() == 0
    until_gone(pids(daemon, "p"))
    daemon.open_gate("go")
    daemon.start()
    eventually(lambda: daemon.client().status()["note"] == "after_drain of r2 is done")
    assert lines(daemon, "a") == [of(daemon, "r2", "r1")] * 2


def test_the_next_deploy_waits_for_an_after_drain_that_runs(daemon: Daemon) -> None:
    script = f"echo drain $TASKD_REVISION >> ../../o; {waits('go')}; echo drained >> ../../o"
    started(daemon, after_drain=script, before="echo before $TASKD_REVISION >> ../../o")
    daemon.reload("r2")
    eventually(lambda: ["drain", "r2"] in lines(daemon, "o"), "after_drain runs")
    with daemon.raw() as caller:
        number = caller.start("reload", release=daemon.path("releases", "r3"))
        eventually(lambda: "zygote started revision=r3" in daemon.log())
        daemon.open_gate("go")
        assert caller.reply_to(number)["revision"] == "r3"
    eventually(lambda: len(lines(daemon, "o")) == 6)
    assert [" ".join(line) for line in lines(daemon, "o")] == [
        "before r2",
        "drain r2",
        "drained",
        "before r3",
        "drain r3",
        "drained",
    ]


def test_a_refused_deploy_makes_no_after_drain(daemon: Daemon) -> None:
    started(daemon, after_drain=noted("a"), before="exit 1")
    refused(daemon, "r2")
    daemon.restart()
    assert serves(daemon) == "r1"
    assert begun(daemon, "after_drain") == 0
