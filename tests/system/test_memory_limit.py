"""Limits of queues under a booted systemd whose kernel has the controllers for them.

The kernel of the machine that runs the tests may keep them from containers; this one is of the
test's own.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support import uml
from support.roots import Debian

INSIDE = """
import json, os, subprocess, sys, time

APP = '''
import os, time
from taskd import task

@task(queue="small")
def takes(ctx) -> str:
    "The first time more than its queue may have."
    found = []
    while ctx.attempt == 1:
        found.append(b"x" * (1 << 20))
    return "done"

@task
def stays(ctx) -> int:
    open("/tmp/began", "w").close()
    while not os.path.exists("/tmp/go"):
        time.sleep(0.05)
    return os.getpid()
'''

def run(*words, check=True):
    print("+", *words, file=sys.stderr, flush=True)
    ran = subprocess.run(words, capture_output=True, text=True)
    if check and ran.returncode != 0:
        fail(f"{words}: {ran.returncode}\\n{ran.stdout}{ran.stderr}")
    return ran.stdout.strip()

def fail(what):
    journal = run("journalctl", "--unit=taskd", "--no-pager", check=False)
    sys.exit(f"{what}\\n{journal}")

def until(look, what):
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if look():
            return
        time.sleep(0.1)
    fail(f"never: {what}")

def unit(name):
    return run("systemctl", "show", "--value", f"--property={name}", "taskd")

def show(task):
    return json.loads(run("taskctl", "show", task, "--json"))

run("/opt/taskd/bin/taskd", "install")
os.makedirs("/srv/app/releases/r1")
open("/srv/app/releases/r1/app_tasks.py", "w").write(APP)
os.symlink("releases/r1", "/srv/app/current")
text = open("/etc/taskd/taskd.toml").read().replace("app.tasks", "app_tasks")
small = "[queues.small]\\nmemory_max = \\"48MiB\\"\\n"
text = text.replace("[daemon]", small + "[daemon]")
open("/etc/taskd/taskd.toml", "w").write(text)
run("systemctl", "enable", "--now", "taskd")
pid = unit("MainPID")
stays = run("taskctl", "submit", "stays")
until(lambda: os.path.exists("/var/lib/taskd/tmp/began"), "it runs")
takes = run("taskctl", "submit", "takes")
run("taskctl", "wait", takes)
shown = show(takes)
seen = {
    "takes": [shown[key] for key in ("state", "attempt", "result")],
    "unit": [unit("ActiveState"), unit("NRestarts"), unit("MainPID") == pid],
    "beside": show(stays)["state"],
    "journal": run("journalctl", "--unit=taskd", "--no-pager", "--output=cat"),
}
# With limits in force the unit's own group may hold no process, and the daemon must start in it.
os.kill(int(pid), 9)
until(lambda: run("taskctl", "status", check=False), "an answer after the crash")
open("/var/lib/taskd/tmp/go", "w").close()
run("taskctl", "wait", stays)
shown = show(stays)
seen["over a crash"] = [shown["state"], shown["attempt"], unit("NRestarts")]
run("systemctl", "stop", "taskd")
seen["stopped"] = [unit("ActiveState"), unit("Result")]
print(json.dumps(seen))
"""


@pytest.mark.timeout(1200)
def test_a_task_over_its_memory_limit_is_killed_alone_and_the_unit_goes_on(
    installed: Callable[[Debian], list[Path]], debian: Debian, tmp_path: Path
) -> None:
    said = uml.boot_and_run(installed(debian), tmp_path, INSIDE)
    seen = json.loads(said.splitlines()[-1])
    assert seen["takes"] == ["succeeded", 2, "done"]
    assert seen["unit"] == ["active", "0", True]
    assert seen["beside"] == "running"
    assert "more memory than its queue's memory_max, 48MiB" in seen["journal"]
    assert seen["over a crash"] == ["succeeded", 1, "1"]
    assert seen["stopped"] == ["inactive", "success"]
