"""The built-in task ``command``: runs any program, and lets it run on through deploys.

Runs in a worker. The program has a process group of its own; its output goes to the task's log.
It finds TASKD_TASK_ID, TASKD_ATTEMPT, TASKD_REVISION, TASKD_SCRATCH and TASKD_SOCKET in its
environment. Asked to leave, its group gets SIGTERM once, and is waited for: what follows if it
does not end is for the master to decide.

    exit status 0              success, asked to leave or not
    exit status 75             "continue me later" (EX_TEMPFAIL): left, or yielded if nobody asked
    death by SIGTERM, or 143   left, if it was asked to leave
    anything else              failed, as CommandFailed

What the machine has not got just now (a process, a thread, a descriptor) is no failure of the
program: it is yielded, and has not begun.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess

from taskd import tasks
from taskd.api.context import Context
from taskd.api.interrupt import Interrupted, Yielded
from taskd.api.recorder import Recorder, Wish
from taskd.model.task import COMMAND
from taskd.posix import limits
from taskd.protocol.secret import Secret
from taskd.worker.program_end import Watch

EX_TEMPFAIL = 75

DIED_OF_SIGTERM = (-signal.SIGTERM, 128 + signal.SIGTERM)
"""As its parent sees it, and as shells and some run times (Java) say it with their exit status."""


_PASSING = limits.SHORT | {errno.EAGAIN}


class CommandFailed(Exception):
    """The program did not start, or did not end well."""


def command(
    ctx: Context,
    argv: list[str],
    cwd: str | None = None,
    env: dict[str, str | Secret[str]] | None = None,
) -> int:
    """Run the program ``argv`` in ``cwd`` with ``env`` added to the environment; returns 0."""
    _check(argv, cwd, env)
    recorder = ctx._recorder
    watch = Watch(recorder)
    try:
        process = _start(argv, cwd, _environment(ctx, env))
    except BaseException:
        watch.let_go()
        raise
    wish = _wait(process, recorder, watch)
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


def _revealed(value: object) -> object:
    return value.reveal() if isinstance(value, Secret) else value


def _environment(ctx: Context, env: dict[str, str | Secret[str]] | None) -> dict[str, str]:
    """TASKD_SOCKET is in the worker's own environment already."""
    ours = {
        "TASKD_TASK_ID": ctx.id,
        "TASKD_ATTEMPT": str(ctx.attempt),
        "TASKD_REVISION": ctx.revision,
        "TASKD_SCRATCH": str(ctx.scratch),
    }
    socket = os.environ.get("TASKD_SOCKET")
    theirs = {name: str(_revealed(value)) for name, value in (env or {}).items()}
    return {**os.environ, **theirs, **ours, **({"TASKD_SOCKET": socket} if socket else {})}


def _start(
    argv: list[str], cwd: str | None, environment: dict[str, str]
) -> subprocess.Popen[bytes]:
    if cwd is not None and not os.path.isdir(cwd):
        raise CommandFailed(f"cannot start {argv[0]!r}: there is no directory {cwd!r}")
    try:
        return subprocess.Popen(
            argv, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, process_group=0
        )
    except FileNotFoundError:
        raise CommandFailed(
            f"program not found: {argv[0]!r}; searched {environment.get('PATH', os.defpath)}"
        ) from None
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in _PASSING:
            raise Yielded(f"cannot start {argv[0]!r} yet: {error.strerror}") from None
        raise CommandFailed(f"cannot start {argv[0]!r}: {error}") from None


def _wait(process: subprocess.Popen[bytes], recorder: Recorder, watch: Watch) -> Wish | None:
    """Until the program has ended; the wish that it was told of, if there was one.

    It is reaped last of all, so that until then its pid and its group are its own.
    """
    watch.begin(process.pid)
    try:
        recorder.wait_for(lambda: watch.ended or recorder.wish() is not None)
        wish = None if watch.ended else recorder.wish()
        if wish is not None:
            os.killpg(process.pid, signal.SIGTERM)
        watch.join()
    except BaseException:  # a Ctrl-C in a test, say: nothing may stay behind
        os.killpg(process.pid, signal.SIGKILL)
        watch.join()
        raise
    finally:
        process.wait()
    return wish


def _judge(status: int, wish: Wish | None) -> int:
    if status == 0:
        return 0
    if wish is not None and (status == EX_TEMPFAIL or status in DIED_OF_SIGTERM):
        raise Interrupted(wish.why)
    if status == EX_TEMPFAIL:
        raise Yielded("the command asked to be continued later (exit status 75)")
    raise CommandFailed(_in_words(status))


def _in_words(status: int) -> str:
    if status > 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"


tasks.register(tasks.make_task(command, name=COMMAND), built_in=True)
