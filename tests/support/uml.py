"""A kernel of its own for tests that need what this machine's kernel does not offer.

User Mode Linux is Linux as a program: it boots within a second, from the very files of this
machine, with a fresh process table and all controllers of control groups. A test file is run
inside by pytest, and what that says is its result.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

PROGRAM = "linux.uml"
_CAGE = ("unshare", "--pid", "--fork", "--kill-child")
_LONGEST = 400
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
{python} -m pytest -p no:cacheprovider -q -rs {words}
echo "{ended} $?"
{python} -c 'import ctypes; ctypes.CDLL(None).reboot(0x4321FEDC)'
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
    command = [*_CAGE, PROGRAM, "mem=700M", "rootfstype=hostfs", "rootflags=/", "rw", "quiet",
               f"init={init}", "con=null", "con0=null,fd:1"]  # fmt: skip
    ran = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=_LONGEST,
    )
    said = ran.stdout.decode(errors="replace").replace("\r", "")
    ends = [line.removeprefix(_ENDED) for line in said.splitlines() if line.startswith(_ENDED)]
    return int(ends[-1]) if ends else None, said
