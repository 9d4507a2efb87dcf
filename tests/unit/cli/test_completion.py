"""The completion of taskctl for bash: it offers what the command has, and what the daemon knows."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cli_daemon import COMMAND, Daemon, task

import taskd
from taskd.cli import taskctl

SCRIPT = Path(taskd.__file__).parent.parent / "contrib" / "completion" / "taskctl.bash"

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")


def completed(line: str, daemon: Daemon | None = None, cwd: Path | None = None) -> set[str]:
    """What bash offers at the end of the line; the last word is what is to be completed."""
    words = [*line.split(" ")]
    script = (
        f"source {shlex.quote(str(SCRIPT))}\n"
        f'taskctl() {{ {shlex.join([sys.executable, "-c", COMMAND])} "$@"; }}\n'
        f"COMP_WORDS=({' '.join(map(shlex.quote, words))}); COMP_CWORD={len(words) - 1}\n"
        '_taskctl; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    ran = subprocess.run(
        ["bash", "-c", script],
        env=os.environ | {"TASKD_SOCKET": daemon.path if daemon else "/none"},
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    return set(ran.stdout.split())


def options(verb: str) -> set[str]:
    whole = taskctl.parser([verb])
    verbs = next(a for a in whole._actions if isinstance(a, argparse._SubParsersAction))
    found = {name for action in verbs.choices[verb]._actions for name in action.option_strings}
    return found - {"-h"}


def test_every_verb_is_offered() -> None:
    assert completed("taskctl ") == {*taskctl.VERBS, "--socket", "--help", "--version"}
    assert completed("taskctl re") == {"retry", "revisions", "reload", "resume"}
    assert completed("taskctl --socket /none rev") == {"revisions"}


@pytest.mark.parametrize("verb", taskctl.VERBS)
def test_each_verbs_options_are_offered(verb: str) -> None:
    assert completed(f"taskctl {verb} -") == options(verb)


def test_ids_and_revisions_are_those_that_the_daemon_knows(daemon: Daemon) -> None:
    daemon.add(task(17, name='"id": "5'), task(123))
    names = ("r41", "r42", "$(touch evil)", "a b")
    live = [
        {"revision": name, "path": "/", "hash": "", "state": "draining", "workers": 0,
         "running": 0, "waiting": 0, "age": 1.0, "memory": None, "holds": []}
        for name in names
    ]  # fmt: skip
    daemon.answers["revisions"] = lambda fields: {"revisions": live, "rejected": []}
    assert completed("taskctl show ", daemon) == {"17", "123"}
    assert completed("taskctl cancel 17 1", daemon) == {"17", "123"}
    assert completed(f"taskctl --socket {daemon.path} wait 12") == {"123"}
    assert completed("taskctl drain --revision ", daemon) == {"r41", "r42"}


def test_without_a_daemon_nothing_is_offered_and_nothing_said() -> None:
    assert completed("taskctl show ") == completed("taskctl drain --revision ") == set()


def test_a_release_is_a_directory(tmp_path: Path) -> None:
    (tmp_path / "r41").mkdir()
    (tmp_path / "r42").touch()
    assert completed("taskctl deploy r", cwd=tmp_path) == {"r41"}
