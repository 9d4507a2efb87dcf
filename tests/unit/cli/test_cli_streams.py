"""Outputs that are closed, full or a terminal, and a working directory that is gone: real
processes of taskctl and taskd."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_daemon import Daemon, succeeded
from client_daemon import event

from taskd.paths import WORKER_SOCKET
from taskd.posix.sockets import listen

PROGRAMS = {
    "taskctl": "import sys; from taskd.cli.taskctl import main; sys.exit(main())",
    "taskd": "import sys; from taskd.cli.taskd import main; sys.exit(main())",
}

STATUS = {
    "pid": 7, "revision": "r1", "release": "/srv/r1", "confirmed": "/srv/r1", "symlink": "/srv/r1",
    "link": "/srv/current", "states": {"queued": 3}, "queues": {}, "taskd": "0.2.0", "note": "",
    "problems": [], "checks": [{"name": "c", "ok": True, "text": "t"}],
}  # fmt: skip

VERBS = [
    "taskctl status", "taskctl status --json", "taskctl doctor", "taskctl list",
    "taskctl list --json", "taskctl show 1", "taskctl logs 1", "taskctl logs -f 1",
    "taskctl wait 1",
    "taskctl follow 1", "taskctl follow --json 1", "taskctl submit index", "taskctl run -- true",
    "taskctl cancel 1", "taskctl retry 1", "taskctl drain --revision r1", "taskctl drain",
    "taskctl reload --json", "taskctl --help", "taskd --version", "taskd install --help",
]  # fmt: skip


def prepared(daemon: Daemon) -> None:
    daemon.add(succeeded(1, "x" * 100_000))
    daemon.answers |= {
        "status": lambda fields: STATUS,
        "log": lambda fields: {"data": b"x" * 9999, "offset": 9999, "size": 9999, "ended": True},
        "follow": lambda fields: [event(7, 1, "succeeded")],
        "cancel": lambda fields: {"state": "cancelled", "was": "queued"},
        "retry": lambda fields: {"state": "queued"},
        "revisions": lambda fields: {"revisions": [{"revision": "r1"}], "rejected": []},
        "drain": lambda fields: {"running": 3, "asked": 0},
        "shutdown": lambda fields: {"tasks": [], "limit": 60},
        "reload": lambda fields: {"revision": "r2", "previous": "r1", "pause": 0.1, "plan": None},
    }


def in_a_shell(daemon: Daemon, words: str, **more: Any) -> subprocess.CompletedProcess[bytes]:
    """Words of a shell; what is redirected there is, and Python starts with it so."""
    shell = ["bash", "-c", f'{{ taskctl() {{ exec "$P" -c "$C" "$@"; }}; {words}; }}']
    for name, code in PROGRAMS.items():
        if words.startswith(name + " "):
            shell[2] = shell[2].replace("taskctl()", f"{name}()")
            environ = os.environ | {"P": sys.executable, "C": code, "TASKD_SOCKET": daemon.path}
            return subprocess.run(
                shell, env=environ, capture_output=True, timeout=60, check=False, **more
            )
    raise AssertionError(words)


@pytest.mark.parametrize("words", VERBS)
def test_an_output_that_takes_no_more_is_one_line_and_1(daemon: Daemon, words: str) -> None:
    prepared(daemon)
    name = words.split()[0]
    for output, why in (("/dev/full", "No space left on device"), ("&-", "Bad file descriptor")):
        ran = in_a_shell(daemon, f"{words} >{output}")
        said = f"{name}: cannot write: {why}\n".encode()
        assert (ran.returncode, ran.stderr) == (1, said), output


@pytest.mark.parametrize(
    ("words", "status"),
    [("taskctl show 99", 1), ("taskctl nonsense", 2), ("taskctl submit index", 0),
     ("taskctl --socket /nowhere status", 3), ("taskd run --config /nowhere", 1)],
)  # fmt: skip
def test_where_errors_cannot_be_told_the_status_must_do(
    daemon: Daemon, words: str, status: int
) -> None:
    prepared(daemon)
    for output in ("/dev/full", "&-"):
        assert in_a_shell(daemon, f"{words} 2>{output}").returncode == status, output


def test_a_standard_input_that_is_closed_is_no_empty_secret(daemon: Daemon) -> None:
    ran = in_a_shell(daemon, "taskctl submit --secret word=- index <&-")
    assert (ran.returncode, ran.stdout) == (2, b"")
    assert ran.stderr == b"taskctl: --secret word: cannot read -: Bad file descriptor\n"
    assert daemon.seen == []


def test_a_pipe_that_others_made_non_blocking_gets_all(daemon: Daemon) -> None:
    prepared(daemon)
    text = b"y" * 500_000
    daemon.answers["log"] = lambda fields: {
        "data": text, "offset": len(text), "size": len(text), "ended": True
    }  # fmt: skip
    read, write = os.pipe2(os.O_NONBLOCK)
    os.set_blocking(read, True)
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAMS["taskctl"], "logs", "1"],
        env=os.environ | {"TASKD_SOCKET": daemon.path},
        stdout=write,
        stderr=subprocess.PIPE,
    ) as ran:
        os.close(write)
        with open(read, "rb") as file:
            assert file.read() == text
        assert ran.communicate(timeout=60)[1] == b""
    assert ran.returncode == 0


@pytest.mark.parametrize(
    ("words", "status"),
    [("taskctl run -- true", 2), ("taskctl deploy r2", 1), ("taskctl --socket s status", 1),
     ("taskd run --config taskd.toml", 1)],
)  # fmt: skip
def test_a_working_directory_that_is_gone_is_told(
    daemon: Daemon, words: str, status: int, tmp_path: Path
) -> None:
    prepared(daemon)
    name = words.split()[0]
    code = f"import os; os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone')\n{PROGRAMS[name]}"
    ran = subprocess.run(
        [sys.executable, "-c", code, *words.split()[1:]],
        env=os.environ | {"TASKD_SOCKET": daemon.path},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (status, "")
    assert ran.stderr.startswith(f"{name}: ") and ran.stderr.count("\n") == 1
    assert "the working directory is gone" in ran.stderr


# ── a terminal ───────────────────────────────────────────────────────────────────────────────

WILD = (
    b"plain\n\x1b]0;title\x07\x1b[2Jcleared\r\xc2\x9b31m\xe2\x80\xaegnp.exe\xe2\x80\xac"
    b"\tcaf\xc3\xa9 \xff\r\n\x00end"
)


def on_a_terminal(daemon: Daemon, *words: str, parts: list[bytes]) -> bytes:
    left = list(parts)
    size = sum(map(len, parts))

    def log(fields: dict[str, Any]) -> dict[str, Any]:
        some = left.pop(0)
        end = fields.get("offset", 0) + len(some)
        return {"data": some, "offset": end, "size": size, "ended": not left}

    daemon.answers["log"] = log
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAMS["taskctl"], "logs", *words, "1"],
        env=os.environ | {"TASKD_SOCKET": daemon.path, "PYTHONUTF8": "1"},
        stdout=theirs,
    ):
        os.close(theirs)
        found = b""
        try:
            while some := os.read(ours, 65536):
                found += some
        except OSError:  # it has closed its end
            pass
        os.close(ours)
    return found.replace(b"\r\n", b"\n")  # the terminal's own doing


def test_a_terminal_obeys_nothing_that_a_task_wrote(daemon: Daemon) -> None:
    for cut in (0, 7, 40, 41, 56):
        found = on_a_terminal(daemon, parts=[WILD[:cut], WILD[cut:]] if cut else [WILD])
        assert found.decode() == (
            "plain\n\\x1b]0;title\\x07\\x1b[2Jcleared\n\\x9b31m\\u202egnp.exe\\u202c"
            "\tcafé \\xff\n\\x00end"
        ), cut


def test_who_wants_the_bytes_on_a_terminal_has_them(daemon: Daemon) -> None:
    found = on_a_terminal(daemon, "--raw", parts=[WILD])
    assert found == WILD


# ── sockets that are none ────────────────────────────────────────────────────────────────────


def test_what_is_no_socket_of_the_daemons_is_told_at_once(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "file").touch(mode=0o000)
    with listen(str(tmp_path / WORKER_SOCKET)):
        os.symlink(WORKER_SOCKET, tmp_path / "alias.sock")
        for name, why in (
            ("file", "is not a socket"),
            (WORKER_SOCKET, "is the workers' socket: name control.sock"),
            ("alias.sock", "is the workers' socket: name control.sock"),
        ):
            ran = in_a_shell(daemon, f"taskctl --socket {tmp_path / name} status")
            assert ran.returncode == 3
            assert f"{tmp_path / name}: {why}" in ran.stderr.decode()
