"""Where a process can go, and what in its mounts keeps it from there."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from support import users

from taskd import paths
from taskd.posix import mounts

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="makes mounts, or is another user")


def number(path: str) -> int | None:
    error = mounts.why_not_entered(path)
    return None if error is None else error.errno


def test_what_keeps_a_process_out_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert number(str(tmp_path)) is None and number("/") is None
    assert number(str(tmp_path / "missing" / "more")) == errno.ENOENT
    assert number(str(tmp_path / "file")) == errno.ENOTDIR
    assert number(str(tmp_path / "file" / "more")) == errno.ENOTDIR


def test_what_could_wait_for_another_machine_is_not_asked(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/no/such/place")
    for path in (tmp_path / "link", tmp_path / "link" / "more", Path("/proc/no-such-directory")):
        assert number(str(path)) is None
    for path in (f"{tmp_path}/missing/../x", "missing", ""):
        assert number(path) is None


@needs_root
def test_a_directory_that_is_closed_to_a_user_is_told() -> None:
    with tempfile.TemporaryDirectory() as closed:  # not pytest's, above which all is closed
        inside = f"{closed}/inside"
        os.mkdir(inside)
        for place in (closed, inside):
            assert users.as_user(users.STRANGER, [], lambda at=place: number(at)) == errno.EACCES
            assert number(place) is None


def test_the_innermost_mount_is_the_last_one_there() -> None:
    lines = [
        "22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw",
        "23 22 8:1 /srv /srv ro,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro",
        r"24 22 0:9 / /srv/a\040b rw - nfs4 server:/x rw",
        "25 22 0:4 /systemd/inaccessible/dir /srv ro,nosuid - tmpfs tmpfs rw",
    ]
    table = [mounts._mount(f"{line}\n") for line in lines]
    assert [each.at for each in mounts.on_the_way("/srv/a b/c", table)] == ["/", "/srv", "/srv/a b"]
    assert [each.kind for each in mounts.on_the_way("/srvx", table)] == ["ext4"]
    (_, innermost) = mounts.on_the_way("/srv", table)
    assert innermost.root == "/systemd/inaccessible/dir" and "ro" in innermost.options


FAIL = """
import os, sys
from taskd.worker import failure
try:
    exec(sys.argv[1])
except BaseException as error:
    print(failure.describe(error)["traceback"])
"""


@needs_root
@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("open('PLACE/closed/x', 'w')", "tasks may not write to PLACE/closed/x: ReadWritePaths="),
        ("os.chdir('PLACE'); os.mkdir('closed/x')", "tasks may not write to PLACE/closed/x"),
        (
            "raise ValueError('around') from OSError(30, 'Read-only', 'PLACE/closed/x')",
            "tasks may not write to PLACE/closed/x",
        ),
        ("raise OSError(30, 'Read-only', 'PLACE/open/x')", None),
        ("raise PermissionError(13, 'Permission denied', 'PLACE/open/x')", None),
        ("raise PermissionError(1, 'Operation not permitted')", None),  # nothing is filtered here
        ("raise OSError(5, 'I/O error', 'PLACE/closed/x')", None),
        (
            "class E(OSError): filename = property(lambda self: 1 / 0)\\nraise E(30, 'a', None)",
            None,
        ),
    ],
)
def test_a_failure_by_the_sandbox_says_so(tmp_path: Path, code: str, says: str | None) -> None:
    for name in ("open", "closed"):
        (tmp_path / name).mkdir()
    sandbox = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
    words = [sys.executable, "-c", FAIL, code.replace("PLACE", str(tmp_path)).replace("\\n", "\n")]

    def run(**more: str) -> str:
        ran = subprocess.run(
            ["unshare", "--mount", "sh", "-c", sandbox, str(tmp_path / "closed"), *words],
            env=os.environ | more,
            capture_output=True,
            text=True,
            check=True,
        )
        return ran.stdout

    said = run(INVOCATION_ID="0123")
    assert "Traceback (most recent call last):" in said
    if says is None:
        assert "the service's sandbox" not in said
    else:
        assert f"(the service's sandbox: {says.replace('PLACE', str(tmp_path))}" in said
        assert f"; {paths.MORE} has the line: " in said.splitlines()[-2]
        assert "the service's sandbox" not in run(INVOCATION_ID=""), "there is no service"
