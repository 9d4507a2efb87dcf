"""A kernel of its own for tests that need what this machine's kernel does not offer.

User Mode Linux is Linux as a program: it boots within a second, with a fresh process table and all
controllers of control groups. Either from the very files of this machine: a test file is run inside
by pytest, and what that says is its result. Or from a Debian root, with systemd: a program is run
inside once it has booted, and what that writes is the result.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from support import uml_run

PROGRAM = "linux.uml"
_RUN = (sys.executable, uml_run.__file__)
_CAGE = ("unshare", "--pid", "--fork", "--kill-child")
_LONGEST = 900
_PANIC = b"Kernel panic"
"""After it the kernel spins: neither its console nor its process ends."""

_ENDED = "taskd: pytest ended with"

_INIT = """#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t cgroup2 groups /sys/fs/cgroup
mount -t tmpfs own /mnt
ip link set lo up 2>/dev/null
export TMPDIR=/mnt HOME=/mnt LANG=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin
export PYTHONDONTWRITEBYTECODE=1 PYTHONPATH={path}
cd {root}
{python} -m pytest -n 0 -p no:cacheprovider -q -rs {words}
echo "{ended} $?"
{python} -c 'import ctypes; ctypes.CDLL(None).reboot(0x4321FEDC)'
"""


_STACK = """
set -e
mkdir "$1/work" "$1/root"
mount -t overlay machine -o "lowerdir=$2,upperdir=$1/upper,workdir=$1/work" "$1/root"
exec linux.uml mem=1G rootfstype=hostfs rootflags="$1/root" rw quiet init=/lib/systemd/systemd \\
    con=null con0=null,fd:1 {words}
"""

_NOT_NEEDED = ("systemd-journal-catalog-update.service", "systemd-update-done.service",
               "systemd-logind.service", "getty@tty1.service", "systemd-user-sessions.service",
               "systemd-journal-flush.service", "fstrim.timer",
               "systemd-tmpfiles-clean.timer")  # fmt: skip
"""Units that cost time."""

_IN_MEMORY = ("/var/lib/taskd", "/var/log/taskd")
"""Where another user than root writes: the machine's files are not open to it from in there."""

_UNIT = """
[Unit]
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'cd; /opt/taskd/bin/python inside.py >said 2>&1; echo $$? >status'
Environment=HOME=/root
ExecStopPost=/bin/systemctl --force poweroff
[Install]
WantedBy=graphical.target
"""


def is_there() -> bool:
    return shutil.which(PROGRAM) is not None and os.getuid() == 0


def run_pytest(place: Path, words: Sequence[str]) -> tuple[int | None, str]:
    """pytest's exit status inside (None: it never came to that), and what the console showed."""
    root = Path(__file__).parent.parent.parent
    init = place / "init"
    text = _INIT.format(
        path=root, root=root, python=sys.executable, words=" ".join(words), ended=_ENDED
    )
    init.write_text(text)
    init.chmod(0o755)
    environment = [f"{name}={value}" for name, value in uml_run.ENVIRONMENT.items()]
    boot = ("mem=700M", "rootfstype=hostfs", "rootflags=/", "rw", "quiet", f"init={init}",
            "con=null", "con0=null,fd:1")  # fmt: skip
    said = _console([*_RUN, *_CAGE, PROGRAM, *boot, *environment])
    ends = [line.removeprefix(_ENDED) for line in said.splitlines() if line.startswith(_ENDED)]
    return int(ends[-1]) if ends else None, said


def boot_and_run(layers: Sequence[Path], place: Path, program: str) -> str:
    """Boot a Debian, run a Python program in it as root, and give what it printed.

    ``layers``: what its root consists of, the uppermost first. ``place``: an empty directory.
    AssertionError if the program fails, or if it never came to run.
    """
    home = place / "upper" / "root"
    units = place / "upper" / "etc" / "systemd" / "system"
    wanted = units / "graphical.target.wants"
    for directory in (home, wanted, *(place / "upper" / path[1:] for path in _IN_MEMORY)):
        directory.mkdir(parents=True)
    mounts = "".join(f"tmpfs {path} tmpfs mode=0700 0 0\n" for path in _IN_MEMORY)
    (place / "upper" / "etc" / "fstab").write_text(mounts)
    (home / "inside.py").write_text(program)
    (units / "inside.service").write_text(_UNIT)
    (wanted / "inside.service").symlink_to(units / "inside.service")
    stack = ":".join(map(str, layers))
    words = " ".join(f"systemd.mask={unit}" for unit in _NOT_NEEDED)
    for name, value in uml_run.ENVIRONMENT.items():
        words += f" {name}='{value}' systemd.setenv={name}='{value}'"
    cage = ("unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child")
    script = _STACK.replace("{words}", words)
    console = _console([*_RUN, *cage, "/bin/sh", "-c", script, "boot", str(place), stack])
    said, status = home / "said", home / "status"
    assert status.exists(), f"it did not come to run the program:\n{console}"
    text = said.read_text()
    assert status.read_text().strip() == "0", text
    shutil.rmtree(place / "upper")
    return text


def _console(command: Sequence[str]) -> str:
    """Run it until its kernel halts or panics, and give what its console showed."""
    ran = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert ran.stdout is not None
    end = threading.Timer(_LONGEST, ran.kill)
    end.start()
    shown: list[bytes] = []
    try:
        for line in ran.stdout:
            shown.append(line)
            if _PANIC in line:
                break
    finally:
        end.cancel()
        ran.kill()
        ran.wait()
        ran.stdout.close()
    return b"".join(shown).decode(errors="replace").replace("\r", "")
