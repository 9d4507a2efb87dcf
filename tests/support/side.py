"""What the apps under test import as ``side``: how they show the outside what they do.

Runs in workers. Every item done is one line ``task item attempt revision pid``, written at once
to an append-only file that the daemon knows nothing of. A gate is a file: who passes it waits
until the test has made it.
"""

import os
import time


def mark(item):
    """One line in the test's file of effects, in one write."""
    name = str(item).replace(" ", "_")
    task, attempt = os.environ["TASKD_TASK_ID"], os.environ["TASKD_ATTEMPT"]
    line = f"{task} {name} {attempt} {os.environ['TASKD_REVISION']} {os.getpid()}\n"
    fd = os.open(os.environ["TASKD_TEST_EFFECTS"], os.O_WRONLY | os.O_APPEND)
    try:
        os.write(fd, line.encode())
    finally:
        os.close(fd)


def attempt():
    return int(os.environ["TASKD_ATTEMPT"])


def is_open(name):
    return os.path.exists(os.path.join(os.environ["TASKD_TEST_GATES"], name))


def gate(name):
    """Wait until the test opens the gate of that name; nothing else ends the wait."""
    while not is_open(name):
        time.sleep(0.005)


def until_asked(ctx):
    """Wait until this task is asked to leave; it does so at its next safe point."""
    while not ctx.stopping:
        time.sleep(0.005)
