"""What ps shows of a process that shows a title."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from taskd.posix import title

SCRIPT = """
import os, sys
from taskd.posix import title
before = dict(os.environ), list(sys.orig_argv)
title.show("taskd: test", sys.stdin.readline())
child = os.fork()
if child == 0:
    title.show("taskd: child", "of it")
    print(open("/proc/self/cmdline").read().rstrip(chr(0)), open("/proc/self/comm").read().strip())
    sys.exit()
os.waitpid(child, 0)
print(open("/proc/self/cmdline").read().rstrip(chr(0)), open("/proc/self/comm").read().strip())
if more := sys.argv[1:] and title.ROOM:
    assert len(open("/proc/self/cmdline").read()) > len(more)
environ = dict(e.split("=", 1) for e in open("/proc/self/environ").read().split(chr(0)) if e)
assert environ["HOME"] == os.environ["HOME"] == before[0]["HOME"]
assert (dict(os.environ), sys.orig_argv) == before
"""


def shown(more: str, *arguments: str) -> list[str]:
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        input=more,
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"HOME": "/the/home"},
    )
    assert ran.stderr == ""
    return ran.stdout.splitlines()


def test_a_process_and_its_child_each_show_their_own() -> None:
    child, parent = shown("r42 task 17 import_orders", title.ROOM)
    assert child == "taskd: child of it taskd: child"
    assert parent == "taskd: test r42 task 17 import_orders taskd: test"


def test_a_title_that_does_not_fit_is_cut_and_nothing_behind_it_is_written() -> None:
    _, parent = shown("x" * 100_000)
    assert parent.startswith("taskd: test xxxx")
    assert len(parent) < 10_000


@pytest.mark.parametrize("more", ["r\N{SNOWMAN}", "r\x1b", "r\x7f"])
def test_what_a_terminal_would_obey_is_not_shown(more: str) -> None:
    assert shown(more, title.ROOM)[1] == "taskd: test r? taskd: test"
