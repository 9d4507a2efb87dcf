"""`taskctl status` and `doctor` while a deploy is held in one of its phases."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from support.daemon import Daemon
from support.waiting import eventually
from world import FaultyDaemon

TASKCTL = "import sys; from taskd.cli.taskctl import main; sys.exit(main())"

APP = """
import os
import time

from taskd import task

def waits(name):
    while not os.path.exists(os.path.join(os.environ["TASKD_TEST_GATES"], name)):
        time.sleep(0.01)

{held}

@task
def which() -> str:
    return "done"
"""

HOLDS = {"proving": 'waits("proving")', "planning": 'def probe(): waits("planning")'}
"""What holds a deploy of r2 in that phase, in its app."""

WAITS_FOR = {
    "proving": ["the release's app, which is imported"],
    "planning": ["the answers for 0 of 0 items"],
    "trying": ["the trial of the release's taskd"],
    "hooking": ["[hooks] before"],
    "quiescing": ["workers being started: 1"],
}


def under_way(daemon: Daemon) -> dict[str, Any]:
    found = daemon.client().status()["deploy"]
    return found if isinstance(found, dict) else {}


@contextmanager
def deploying(daemon: Daemon, name: str) -> Iterator[list[Any]]:
    """A deploy of that release in another thread; the list has its answer or error at the end."""
    found: list[Any] = []

    def deploy() -> None:
        try:
            found.append(daemon.reload(name))
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=deploy)
    thread.start()
    yield found
    thread.join(60)
    assert found, "the deploy is over"


def held_in(daemon: Daemon, phase: str, at: float) -> dict[str, Any]:
    """What ``status`` says of a deploy that began at ``at`` and stays in ``phase``."""
    found: dict[str, Any] = eventually(
        lambda: (each := under_way(daemon)).get("waits_for") == WAITS_FOR[phase] and each,
        f"the deploy is {phase}",
    )
    assert found["phase"] == phase
    assert found["release"] == daemon.path("releases", "r2")
    assert at <= found["since"] <= time.time()
    later = under_way(daemon)
    assert (later["phase"], later["since"]) == (phase, found["since"]), "of the phase's start"
    return found


def taskctl(daemon: Daemon, verb: str) -> str:
    command = [sys.executable, "-c", TASKCTL, "--socket", daemon.control, verb]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout


def shown(daemon: Daemon, phase: str) -> None:
    """Both commands show that phase, and what it waits for."""
    text = taskctl(daemon, "status")
    assert f"deploy of r2: {phase} for " in text, text
    assert f"  waits for {WAITS_FOR[phase][0]}" in taskctl(daemon, "doctor").splitlines()


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> FaultyDaemon:
    """Not started yet: each test says first what holds the deploy."""
    made = new_daemon(kind=FaultyDaemon)
    assert isinstance(made, FaultyDaemon)
    return made


@pytest.mark.parametrize("phase", ["proving", "planning", "hooking", "quiescing"])
def test_status_and_doctor_show_the_phase_that_a_deploy_is_in(
    daemon: FaultyDaemon, phase: str
) -> None:
    daemon.release("r1", APP.format(held=""))
    daemon.release("r2", APP.format(held=HOLDS.get(phase, "")))
    daemon.point("r1")
    daemon.sections["app"] = {"probe": "app:probe"} if phase == "planning" else {}
    daemon.write_config()
    daemon.start()
    if phase == "hooking":
        gate = daemon.path("gates", "hooking")
        daemon.sections["hooks"] = {"before": f"while [ ! -e {gate} ]; do sleep 0.01; done"}
        daemon.write_config()
    assert daemon.client().status()["deploy"] is None
    found = re.search(r"zygote started revision=r1 pid=(\d+)", daemon.log())
    assert found is not None
    if phase == "quiescing":  # the zygote does not answer the request for a worker
        os.kill(int(found[1]), signal.SIGSTOP)
        daemon.client().submit("which")
    at = time.time()
    with deploying(daemon, "r2") as answer:
        held_in(daemon, phase, at)
        shown(daemon, phase)
        os.kill(int(found[1]), signal.SIGCONT)
        with open(daemon.path("gates", phase), "w", encoding="utf-8"):
            pass
    assert isinstance(answer[0], dict), answer
    assert daemon.client().status()["deploy"] is None
    assert os.path.basename(daemon.client().status()["release"]) == "r2"


def test_status_and_doctor_show_the_trial_and_after_a_refusal_nothing(
    daemon: FaultyDaemon,
) -> None:
    daemon.release("r1", APP.format(held=""))
    daemon.release("r2", APP.format(held=""))
    daemon.point("r1")
    daemon.start()
    daemon.fail_at("trial: load", "hang")  # for 3 s
    at = time.time()
    with deploying(daemon, "r2") as answer:
        held_in(daemon, "trying", at)
        shown(daemon, "trying")
    assert "its trial was not done after 3 s" in str(answer[0])
    assert daemon.client().status()["deploy"] is None
