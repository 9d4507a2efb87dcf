"""How a command ends: its exit status, and what it says on stderr.

0  done
1  refused or failed; the reason is on stderr
2  wrong usage
3  no daemon is reachable
4  a waited-for task did not succeed, or still runs when the waiting time is over
130  ended by Ctrl-C; 141: who read the output went away
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from taskd import errors
from taskd.cli import text

DONE = 0
FAILED = 1
USAGE = 2
NO_DAEMON = 3
NOT_SUCCEEDED = 4
INTERRUPTED = 130
READER_GONE = 141


class UsageError(Exception):
    """The command line makes no sense; the text says why."""


def guarded(program: str, command: Callable[[], int | None]) -> int:
    """Run a command; its exit status. An error that is nobody's plan keeps its traceback."""
    _never_fail_to_print()
    try:
        status = command()
        sys.stdout.flush()
    except BrokenPipeError:
        _forget_output()
        return READER_GONE
    except KeyboardInterrupt:
        return INTERRUPTED
    except UsageError as error:
        return _said(program, error, USAGE)
    except errors.NoDaemon as error:
        return _said(program, error, NO_DAEMON)
    except errors.Error as error:
        return _said(program, error, FAILED)
    return status or DONE


def say(program: str, message: str) -> None:
    """A message for the user on stderr; line by line, since a traceback may be in it."""
    for line in message.splitlines() or [""]:
        print(f"{program}: {text.clean(line)}", file=sys.stderr)


def _said(program: str, error: Exception, status: int) -> int:
    say(program, str(error))
    return status


def _never_fail_to_print() -> None:
    """A name that the terminal's encoding lacks is shown escaped."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _forget_output() -> None:
    """What is still buffered goes nowhere, so that the interpreter's exit is quiet too."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
