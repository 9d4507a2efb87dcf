"""What strace saw: the system calls of all processes of one run, in their order.

strace prints every string and path as hexadecimal bytes, so that nothing in a line but its own
commas separates arguments. A call that another process's call came between stands in two lines;
``begin`` and ``end`` are the numbers of the line in which it was entered and in which it returned.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import NamedTuple

CHANGES = (
    "write,pwrite64,writev,pwritev,pwritev2,sendfile,copy_file_range,ftruncate,truncate,fallocate,"
    "fsync,fdatasync,sync_file_range,sync,syncfs,rename,renameat,renameat2,unlink,unlinkat,mkdir,"
    "mkdirat,rmdir,link,linkat,symlink,symlinkat,openat,open,creat"
)
"""Every call by which a process can change a file system, or make a change lasting."""

SPEECH = "sendto,sendmsg,recvfrom,accept4,close"

LONGEST = 64 * 1024 * 1024
"""Bytes of one call's data that are recorded: all of them."""

_LINE = re.compile(r"(\d+) +(\d+\.\d+) (.*)", re.DOTALL)
_WHOLE = re.compile(r"(\w+)\((.*)\) += (.*)", re.DOTALL)
_CUT = re.compile(r"(\w+)\((.*?),? *<unfinished \.\.\.>", re.DOTALL)
_REST = re.compile(r"<\.\.\. (\w+) resumed>(.*)\) += (.*)", re.DOTALL)


class Call(NamedTuple):
    """One system call that returned ``result`` (-1: it failed). ``pid``: of the thread."""

    pid: int
    at: float
    name: str
    args: list[str]
    result: int
    returned: str
    begin: int
    end: int


def command(output: str) -> list[str]:
    """What stands before a command to have it and all its children recorded into ``output``."""
    how = ["-DDD", "-f", "--seccomp-bpf", "-y", "-xx", "-ttt", "-s", str(LONGEST)]
    what = ["-e", f"trace={CHANGES},{SPEECH}", "-e", "signal=none"]
    return ["strace", *how, *what, "-o", output]


def why_not() -> str | None:
    """Why nothing can be recorded here, or None."""
    if shutil.which("strace") is None:
        return "strace is not installed (Debian: apt-get install strace)"
    tried = subprocess.run(
        ["strace", "-f", "--seccomp-bpf", "-o", "/dev/null", "true"], capture_output=True, text=True
    )
    return None if tried.returncode == 0 else f"strace cannot trace here: {tried.stderr.strip()}"


def calls(path: str) -> Iterator[Call]:
    """The calls that returned, in the order in which they did."""
    entered: dict[int, tuple[str, str, int, float]] = {}
    with open(path, encoding="ascii") as file:
        for number, line in enumerate(file):
            found = _LINE.fullmatch(line.rstrip("\n"))
            assert found is not None, f"line {number + 1} of {path}: {line[:200]}"
            pid, at, text = int(found[1]), float(found[2]), found[3]
            if (cut := _CUT.fullmatch(text)) is not None:
                entered[pid] = cut[1], cut[2], number, at
            elif (rest := _REST.fullmatch(text)) is not None:
                name, head, begin, began = entered.pop(pid)
                assert name == rest[1], f"line {number + 1}: {line[:200]}"
                args = _split(head) + _split(rest[2].lstrip(", "))
                yield _call(pid, began, name, args, rest[3], begin, number)
            elif (whole := _WHOLE.fullmatch(text)) is not None:
                yield _call(pid, at, whole[1], _split(whole[2]), whole[3], number, number)


def _split(args: str) -> list[str]:
    return args.split(", ") if args else []


def _call(
    pid: int, at: float, name: str, args: list[str], returned: str, begin: int, end: int
) -> Call:
    number = re.match(r"-?\d+", returned)
    result = -1 if number is None else int(number[0])
    return Call(pid, at, name, args, result, returned, begin, end)


def text(arg: str) -> bytes:
    """The bytes of a string argument, which stands in quotes."""
    assert arg.startswith('"') and arg.endswith('"'), f"not a whole string: {arg[:80]}"
    return bytes.fromhex(arg[1:-1].replace("\\x", ""))


def descriptor(arg: str) -> tuple[int, str]:
    """The number of a descriptor argument, and the path (or kind) that it stands for.

    A file whose name is gone has " (deleted)" behind its path, which is no path of anything else.
    """
    number, _, rest = arg.partition("<")
    path, _, gone = rest.partition(">")
    name = bytes.fromhex(path.replace("\\x", "")).decode()
    return (-1 if number == "AT_FDCWD" else int(number)), name + (f" {gone}" if gone else "")
