"""How a command ends: its exit status, and what it says on stderr.

0  done
1  refused or failed; the reason is on stderr
2  wrong usage
3  no daemon is reachable
4  a waited-for task did not succeed, or still runs when the waiting time is over
130  ended by Ctrl-C
141  the reader of the output closed it
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from taskd import errors, log
from taskd.cli.output import streams, text

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
    """Run a command; its exit status. An unexpected error keeps its traceback."""
    try:
        streams.prepare()
        return _run(program, command)
    except BrokenPipeError:
        streams.discard(sys.stdout.fileno())
        return READER_GONE
    except streams.CannotWrite as error:
        streams.discard(sys.stdout.fileno())
        return _said(program, f"cannot write: {error.strerror}", FAILED)
    except KeyboardInterrupt:
        return INTERRUPTED


def _run(program: str, command: Callable[[], int | None]) -> int:
    try:
        status = command()
    except SystemExit:  # argparse's way out, with what it printed
        sys.stdout.flush()
        raise
    except UsageError as error:
        status = _said(program, str(error), USAGE)
    except errors.NoDaemon as error:
        status = _said(program, str(error), NO_DAEMON)
    except errors.Error as error:
        status = _said(program, str(error), FAILED)
    except FileNotFoundError:
        try:
            os.getcwd()
        except FileNotFoundError:
            status = _said(program, "the working directory is gone: cd to another one", FAILED)
        else:
            raise
    sys.stdout.flush()
    return status or DONE


def say(message: str, program: str = "taskctl") -> None:
    """Print a message on stderr, each line with the program's name: it may be a traceback."""
    for line in message.splitlines() or [""]:
        print(f"{program}: {text.clean(line)}", file=sys.stderr)


def _said(program: str, message: str, status: int) -> int:
    if log.is_journal():  # systemd runs the command for the unit
        for line in message.splitlines() or [""]:
            log.error(f"{program}: {text.clean(line)}")
    else:
        say(message, program)
    return status
