"""The built-in task ``command``: runs any program, and lets it run on through deploys.

Runs in a worker. The program has a process group of its own; its output goes to the task's log.
It has TASKD_TASK_ID, TASKD_ATTEMPT, TASKD_REVISION, TASKD_SCRATCH and TASKD_SOCKET in its
environment. When the task is asked to leave, its group gets SIGTERM once, and the worker waits for
its end; the master decides what follows if it does not end.

    exit status 0              success, asked to leave or not
    exit status 75             "continue me later" (EX_TEMPFAIL): left, or yielded if not asked to
    death by SIGTERM, or 143   left, if it was asked to leave
    anything else              failed, as CommandFailed

A transient error at its start (no process, thread or descriptor to be had) is no failure of the
program: the task is yielded, and the program has not begun.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from contextlib import AbstractContextManager, nullcontext
from typing import BinaryIO

from taskd import tasks
from taskd.api.context import Context
from taskd.api.interrupt import Interrupted, Yielded
from taskd.api.recorder import Recorder, Wish
from taskd.model.task import COMMAND
from taskd.posix import limits, native
from taskd.protocol.secret import Secret

DIED_OF_SIGTERM = (-signal.SIGTERM, 128 + signal.SIGTERM)
"""As its parent sees it, and as the exit status of shells and some runtimes (Java) says it."""

_PASSING = limits.SHORT | {errno.EAGAIN}


class CommandFailed(Exception):
    """The program did not start, or did not end well."""


def command(
    ctx: Context,
    argv: list[str],
    cwd: str | None = None,
    env: dict[str, str | Secret[str]] | None = None,
    umask: int | None = None,
    nice: int | None = None,
    stdin: str | None = None,
) -> int:
    """Run the program ``argv`` in ``cwd`` with ``env`` added to the environment; returns 0.

    ``stdin``: the file that it reads (default: nothing)."""
    _check(argv, cwd, env)
    _check_numbers(umask, nice, stdin)
    end = ProgramEnd(ctx._recorder)
    try:
        with _input(stdin) as file:
            process = _start(ctx, argv, cwd, env or {}, umask, file)
    except BaseException:
        end.watch(None)
        end.join()
        raise
    wish = _wait(process, ctx._recorder, end, nice)
    return _judge(process.returncode, wish)


def _check(argv: object, cwd: object, env: object) -> None:
    if not isinstance(argv, list) or not argv or not all(isinstance(a, str) for a in argv):
        raise CommandFailed(f"argv must be a list of str, the program first, not {argv!r}")
    if cwd is not None and not isinstance(cwd, str):
        raise CommandFailed(f"cwd must be a str, not {cwd!r}")
    if env is None:
        return
    pairs = env.items() if isinstance(env, dict) else [(None, None)]
    if not all(isinstance(k, str) and isinstance(_revealed(v), str) for k, v in pairs):
        raise CommandFailed("env must be a dict of str to str, or to a Secret of str")


def _check_numbers(umask: object, nice: object, stdin: object) -> None:
    if umask is not None and (type(umask) is not int or not 0 <= umask <= 0o777):
        raise CommandFailed(f"umask must be a number from 0 to 0o777, not {umask!r}")
    if nice is not None and (type(nice) is not int or not 0 <= nice <= 19):
        raise CommandFailed(f"nice must be a number from 0 to 19, not {nice!r}")
    if stdin is not None and not isinstance(stdin, str):
        raise CommandFailed(f"stdin must be a file's path, not {stdin!r}")


def _input(path: str | None) -> AbstractContextManager[BinaryIO | None]:
    if path is None:
        return nullcontext()
    try:
        return open(path, "rb")
    except OSError as error:
        if error.errno in _PASSING:
            raise Yielded(f"cannot read {path!r} yet: {error.strerror}") from None
        raise CommandFailed(f"cannot read its input {path!r}: {error.strerror}") from None


def _revealed(value: object) -> object:
    return value.reveal() if isinstance(value, Secret) else value


def _start(
    ctx: Context,
    argv: list[str],
    cwd: str | None,
    env: dict[str, str | Secret[str]],
    umask: int | None,
    file: BinaryIO | None,
) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        **{name: str(_revealed(value)) for name, value in env.items()},
        "TASKD_TASK_ID": ctx.id,
        "TASKD_ATTEMPT": str(ctx.attempt),
        "TASKD_REVISION": ctx.revision,
        "TASKD_SCRATCH": str(ctx.scratch),
    }
    if socket := os.environ.get("TASKD_SOCKET"):  # not the one that ``env`` may have
        environment["TASKD_SOCKET"] = socket
    if cwd is not None and not os.path.isdir(cwd):
        raise CommandFailed(f"cannot start {argv[0]!r}: there is no directory {cwd!r}")
    try:
        return subprocess.Popen(
            argv,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL if file is None else file,
            umask=-1 if umask is None else umask,
            process_group=0,
        )
    except FileNotFoundError:
        raise CommandFailed(
            f"program not found: {argv[0]!r}; searched {environment.get('PATH', os.defpath)}"
        ) from None
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in _PASSING:
            raise Yielded(f"cannot start {argv[0]!r} yet: {error.strerror}") from None
        raise CommandFailed(f"cannot start {argv[0]!r}: {error}") from None


def _wait(
    process: subprocess.Popen[bytes], recorder: Recorder, end: ProgramEnd, nice: int | None
) -> Wish | None:
    """Wait until the program has ended; returns the wish that it was told of, if there was one.

    The program is reaped last of all: until then its pid and its group cannot be another's.
    """
    end.watch(process.pid)
    try:
        if nice is not None:
            # The service's own may be worse; only root could have it better.
            least = os.getpriority(os.PRIO_PROCESS, 0)
            os.setpriority(os.PRIO_PGRP, process.pid, max(nice, least))
        recorder.wait_for(lambda: end.is_there or recorder.wish() is not None)
        wish = None if end.is_there else recorder.wish()
        if wish is not None:
            os.killpg(process.pid, signal.SIGTERM)
        end.join()
    except BaseException:  # a Ctrl-C in a test, for example: no process may stay behind
        os.killpg(process.pid, signal.SIGKILL)
        end.join()
        raise
    finally:
        process.wait()
    return wish


def _judge(status: int, wish: Wish | None) -> int:
    """0 for success. Raises what the program's exit ``status`` means otherwise."""
    if status == 0:
        return 0
    if wish is not None and (status == os.EX_TEMPFAIL or status in DIED_OF_SIGTERM):
        raise Interrupted(wish.why)
    if status == os.EX_TEMPFAIL:
        raise Yielded("the command asked to be continued later (exit status 75)")
    if status > 0:
        raise CommandFailed(f"exit status {status}")
    try:
        raise CommandFailed(f"killed by {signal.Signals(-status).name}")
    except ValueError:
        raise CommandFailed(f"killed by signal {-status}") from None


class ProgramEnd:
    """A thread that waits for a program's end, without reaping it; ``is_there`` is True then.

    The thread is started before the program: a program whose end cannot be waited for must not
    begin. Raises Yielded if no thread can be started.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._pid: int | None = None
        self._begun, self._over = native.allocate_lock(), native.allocate_lock()
        self._begun.acquire()
        self._over.acquire()
        self.is_there = False
        try:
            native.start_new_thread(self._run, ())
        except RuntimeError as error:
            raise Yielded(f"cannot watch a program yet: {error}") from None

    def watch(self, pid: int | None) -> None:
        """Wait for the end of ``pid``; None: there is no program, and the thread ends."""
        self._pid = pid
        self._begun.release()

    def join(self) -> None:
        """Wait until the thread is over."""
        with self._over:
            pass

    def _run(self) -> None:
        try:
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            self._begun.acquire()
            if self._pid is not None:
                os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOWAIT)
                self.is_there = True
                self._recorder.wake()
        finally:
            self._over.release()


tasks.register(tasks.make_task(command, name=COMMAND), built_in=True)
