"""The names by which another version of taskd calls this one, as CONTRIBUTING.md lists them.

A deploy or a start may go from one version to another. The words of each call then come from a code
that cannot be changed any more; so each stands here as that code says it, and is called for real.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import taskd
from taskd.posix import spawn
from taskd.upgrade import steps

ROOT = Path(taskd.__file__).parents[1]

NO_SNAPSHOT = "the snapshot of the master before this one is damaged"

RUN_AS_MODULE = {
    "taskd": (["run", "--config", "/no/such/file"], "/no/such/file"),
    "taskd.takeover.trial": ([], f"at the step 'read the snapshot': ProtocolError: {NO_SNAPSHOT}"),
    "taskd.zygote": ([" " * 120], "what a zygote is told at its start"),
}
"""With which words each is called, and what it says where descriptor 0 has nothing for it."""

PROBE = """
import taskd.master.start
from importlib.util import find_spec
raise SystemExit(0 if find_spec('taskd.takeover') else 75)
"""
"""What the launcher of 0.2 runs in a release's Python before it hands over to it."""

BEFORE = """#!/bin/sh
printf '%s\\n' "$@"
cat "/proc/self/fd/$8"
"""
"""In place of the image before: says with which words it was called, and what the reason is."""

ENVIRONMENT = {"TASKD_LAUNCHER": spawn.LAUNCHER, "TASKD_HANDED_OVER": spawn.HANDED_OVER}
"""Variables that one version sets and another one reads."""


def called(*words: str) -> subprocess.CompletedProcess[str]:
    """This version's Python with these words, as another version would start it."""
    return subprocess.run(
        [sys.executable, "-P", *words],
        env=spawn.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", RUN_AS_MODULE)
def test_another_version_can_run_it(name: str) -> None:
    words, says = RUN_AS_MODULE[name]
    ran = called("-m", name, *words)
    assert ran.returncode == 1, ran.stderr
    assert says in ran.stdout + ran.stderr


def test_a_new_image_goes_back_to_the_one_before_in_its_words(tmp_path: Path) -> None:
    before = tmp_path / "python"
    before.write_text(BEFORE)
    before.chmod(0o755)
    ran = called("-m", "taskd.takeover.first", "0", str(before))
    said = ran.stdout.splitlines()
    assert said[:2] == ["-P", "-X"], ran.stderr
    assert said[2].startswith("title=")
    assert said[3:7] == ["-m", "taskd.takeover.first", "0", str(before)]
    descriptor, limit, reason = said[7:]
    assert descriptor.isdigit() and limit.isdigit()
    assert reason == f"at the step 'read the snapshot': ProtocolError: {NO_SNAPSHOT}"


def test_this_version_calls_another_by_the_same_names() -> None:
    assert steps.TAKEOVER == "taskd.takeover.first"
    assert steps.TRIAL == "taskd.takeover.trial"
    assert list(ENVIRONMENT) == list(ENVIRONMENT.values())


def test_the_launcher_of_another_version_finds_that_this_one_can_be_the_daemon() -> None:
    ran = called("-c", PROBE)
    assert ran.returncode == 0, ran.stderr


def test_the_list_for_developers_has_each_name() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.partition("## Names that other versions call")[2].partition("\n## ")[0]
    names = [*RUN_AS_MODULE, "taskd.takeover.first", "taskd.master.start", *ENVIRONMENT]
    assert [name for name in names if f"`{name}`" not in section] == []


def test_every_file_that_is_named_for_developers_is_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = {word for word in text.split("`")[1::2] if "/" in word and " " not in word}
    folders = {"taskd", "tests", "contrib", "systemd", ".ci"}
    paths = {word.partition(":")[0] for word in named if word.split("/")[0] in folders}
    assert len(paths) > 40
    assert sorted(path for path in paths if not os.path.exists(ROOT / path)) == []
