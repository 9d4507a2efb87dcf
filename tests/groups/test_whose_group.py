"""Which control group a daemon takes for its own: asked by a process that is in it."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.groups import MARK, mounted

from taskd.posix import cgroup

ASK = """
import sys
from taskd.posix import cgroup
print(cgroup.find(is_service=sys.argv[1] == "service").base)
"""
OWN = f"user@{os.getuid()}.service"
OTHER = "user@54321.service"


@pytest.fixture
def top() -> Iterator[Path]:
    path = mounted() / f"taskd-test-{uuid.uuid4().hex}"
    path.mkdir()
    yield path
    assert cgroup.remove(str(path))


def asked(group: Path, kind: str) -> Path | None:
    """What a process in ``group``, which a service manager has started or nobody, takes."""
    group.mkdir(parents=True, exist_ok=True)
    script = 'echo 0 >"$0/cgroup.procs" && exec "$@"'
    words = ["/bin/sh", "-c", script, str(group), sys.executable, "-c", ASK, kind]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    return None if said == "None" else Path(said)


def test_a_group_that_bears_the_mark_is_ours(top: Path) -> None:
    assert asked(top, "service") is None
    os.setxattr(top, MARK, b"1")
    assert asked(top, "service") == asked(top, "other") == top
    assert asked(top / "taskd-master", "service") == top


def test_a_service_of_the_users_own_manager_has_the_mark_of_the_manager(top: Path) -> None:
    service = top / OWN / "app.slice" / "taskd.service"
    assert asked(service, "service") is None
    os.setxattr(top / OWN, MARK, b"1")
    assert asked(service, "service") == service
    assert asked(service / "taskd-master", "service") == service


@pytest.mark.parametrize(
    ("where", "kind"),
    [
        ("app.slice/terminal.scope", "service"),
        ("app.slice/terminal.service", "other"),  # a shell's: nobody has started us as a service
        ("app.slice", "service"),
    ],
)
def test_what_the_user_else_runs_is_not_divided(top: Path, where: str, kind: str) -> None:
    (top / OWN).mkdir()
    os.setxattr(top / OWN, MARK, b"1")
    assert asked(top / OWN / where, kind) is None


def test_the_mark_of_another_users_manager_says_nothing(top: Path) -> None:
    (top / OTHER).mkdir()
    os.setxattr(top / OTHER, MARK, b"1")
    assert asked(top / OTHER / "app.slice" / "taskd.service", "service") is None
