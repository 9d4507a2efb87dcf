"""The zygote: one per revision. It imports the app, then only forks workers and keeps them.

It is its workers' parent and reaps them; each exit status is held until a master has noted it, so
that a master that is replaced, or dies, misses none. It has no threads and one wait point.

Invariants: a worker's exit is told only once its whole tree is gone (``Children``); the heap is
frozen before the first fork; nothing of the master's life is assumed: when the master is lost the
zygote keeps its workers and looks for the next one, which learns from it (and from the record that
it has left on disk, see ``revision.record``) who lives, and each exit that nobody has noted.
"""

from __future__ import annotations

import contextlib
import gc
import os
import platform
import signal
import sys
from typing import Any, NoReturn

import taskd
from taskd.posix import cgroup, descriptors, native, process, spawn, title
from taskd.protocol import boot
from taskd.protocol import worker as protocol
from taskd.revision import record
from taskd.revision.content import Content
from taskd.worker import loglimit, output
from taskd.worker.channel import Channel
from taskd.worker.master_search import MasterSearch
from taskd.zygote import app, fork_sharing
from taskd.zygote.children import Children, Death
from taskd.zygote.process_state import ProcessState

SHORT_AGAIN = 500
"""Milliseconds until a zygote that is out of descriptors looks again at who has died."""

GROUP_AGAIN = 50
"""Milliseconds until a dead worker's group is looked at again, in which something still dies: it
need not be a child of ours."""

LOOK_AGAIN = 3_000
"""Milliseconds until a zygote that has workers looks whether one has died, though no SIGCHLD came:
a hook of the app's that runs at each fork may block it once more."""

IDLE_GRACE = 10.0
"""Seconds that a zygote without workers waits for the next master: importing the app anew is all
that would be lost."""


def main() -> NoReturn:
    """Run until retired (or orphaned) and the last worker is gone; never returns."""
    parent = os.getppid()
    config = _read_boot()
    output.be_lenient()
    del sys.argv[1:]
    if config.worker is not None:
        _spawned_worker(_join_group(config), config.worker)
    try:
        channel = Channel.connect(config.socket)
    except OSError as error:
        sys.exit(f"taskd zygote: no master at {config.socket}: {error}")
    title.show(title.ZYGOTE, config.revision)
    zygote = Zygote(config, channel)
    zygote.prove(parent)
    zygote.serve()
    output.leave(0)  # the app's exit handlers belong to workers, not to their zygote


def _read_boot() -> boot.Boot:
    """Take the configuration from descriptor 0, and leave /dev/null there instead."""
    with os.fdopen(os.dup(0), "rb") as file:
        config = boot.decode(file.read())
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(null, 0)
    native.close(null)
    return config


def _spawned_worker(config: boot.Boot, worker: bytes) -> NoReturn:
    """This process is one worker of an app that cannot be forked."""
    from taskd.worker.process import run_worker

    broken = _load(config)
    if broken is not None:
        sys.exit(f"taskd worker: the app no longer imports: {broken.message}")
    run_worker(config, worker)


def _join_group(config: boot.Boot) -> boot.Boot:
    """In a worker, before any code of the app's runs in it. Without a group it runs all the same,
    and says why."""
    if not config.group:
        return config
    try:
        cgroup.join(config.group)
    except OSError as error:
        return config._replace(group="", ungrouped=error.strerror or str(error))
    return config


def _load(config: boot.Boot) -> app.Broken | None:
    """Import the app. A hang is ended by the kernel's timer at the latest, whatever the app does; a
    zygote also goes with its master, which would have ended it in time: the next knows nothing of
    it."""
    state = ProcessState()
    signal.setitimer(signal.ITIMER_REAL, config.import_within)
    try:
        return app.load(config)
    finally:
        state.restore()
        output.flush()  # what the import has printed is nothing for a task's log


def _start(pid: int) -> int:
    """Of a worker that was forked just now; 0 if it cannot be told: it will say it itself."""
    try:
        return process.start_time(pid) or 0
    except OSError:
        return 0


class Zygote:
    """The zygote's one loop: messages from the master, deaths of workers."""

    def __init__(self, config: boot.Boot, channel: Channel) -> None:
        self._config = config
        self._channel = channel
        self._forks = True
        self._retiring = False
        self._search = MasterSearch(config.socket)
        self._is_searching = False
        self._is_short = False  # of descriptors
        self._record = -1
        self._is_kept = False
        self._me = process.identity()
        self._greet([])

    def _greet(self, workers: list[list[object]]) -> None:
        self._channel.send(
            {
                "type": "hello",
                "role": "zygote",
                "version": protocol.VERSION,
                "id": self._config.id,
                "pid": self._me.pid,
                "start": self._me.start,
                "workers": workers,
            }
        )

    def prove(self, master: int) -> None:
        """Say what the release is, import it, and send its manifest; exits if it is broken, and
        does not outlive the master before that. ``master``: its pid."""
        process.become_subreaper()
        process.end_with_parent(master)
        try:
            self._content = Content(self._config.release)
        except OSError as error:
            where = os.fsencode(error.filename or "").decode(errors="backslashreplace")
            self._refuse(
                f"its files cannot be read, or change while they are: {where}: "
                f"{error.strerror}; a release is a directory that nothing writes to"
            )
        self._channel.send({"type": "identity", "hash": self._content.fingerprint})
        before = descriptors.opened()
        broken = _load(self._config)
        if broken is not None:
            self._refuse(broken.message, broken.traceback)
        process.end_with_parent(0)
        self._children = Children()  # knows from here on which children are the app's own
        self._forks, warnings = app.may_fork(self._config.fork)
        warnings += fork_sharing.opened_since(before) if self._forks else []
        fork_sharing.keep_directories()
        _import_what_workers_need()
        gc.collect()
        gc.freeze()  # the collector never writes to these pages again: they stay shared
        from taskd import tasks

        self._tasks = tasks.manifest()
        self._channel.send(
            {
                "type": "manifest",
                "taskd": taskd.__version__,
                "python": platform.python_version(),
                "forks": self._forks,
                "warnings": warnings,
                "tasks": self._tasks,
            }
        )

    def _refuse(self, message: str, traceback: str = "") -> NoReturn:
        self._channel.send({"type": "broken", "message": message, "traceback": traceback})
        output.leave(1)

    def _keep_record(self) -> None:
        """The revision serves: leave what the next master needs to adopt us. On a full disk it is
        tried again with the next fork; a master that dies before that finds our workers alone."""
        config = self._config
        if not config.records or not self._is_kept or self._record >= 0:
            return
        mine = record.ZygoteRecord(
            id=config.id,
            pid=self._me.pid,
            start=self._me.start,
            boot=self._me.boot,
            release=config.release,
            number=config.number,
            app=config.app or {},
            version=protocol.VERSION,
            fingerprint=self._content.fingerprint,
            taskd=taskd.__version__,
            python=sys.executable,
            forks=self._forks,
            tasks=self._tasks,
            name=config.revision,
        )
        try:
            self._record = record.write(config.records, mine)
        except OSError as error:
            print(f"taskd zygote: no record in {config.records}: {error.strerror}", file=sys.stderr)

    def serve(self) -> None:
        """Until retired or orphaned, with no worker left and every exit told."""
        awake, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._pipe = (awake, waker)
        native.handle_signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        poll = native.poll()
        poll.register(awake, native.POLLIN)
        poll.register(self._channel, native.POLLIN)
        self._tell_deaths()  # some may have come before the signal was caught
        while not self._is_done():
            for fd, _ in poll.poll(self._timeout()):
                if fd == awake:
                    _drain(awake)
                else:
                    self._hear()
            if self._channel.lost:
                self._look_for_master(poll)
            self._tell_deaths()

    def _is_done(self) -> bool:
        if self._children.alive:
            return False
        if not self._is_searching:
            return self._retiring and self._children.is_empty
        if not self._is_kept:
            return True  # no next master knows of us
        grace = self._config.orphan_grace
        if self._children.is_empty:
            grace = 0.0 if self._retiring else min(grace, IDLE_GRACE)
        return self._search.lasted >= grace

    def _timeout(self) -> float | None:
        """Milliseconds until something must be tried again."""
        again = [self._search.due_in() * 1000] if self._is_searching else []
        again += [SHORT_AGAIN] if self._is_short else []
        again += [GROUP_AGAIN] if self._children.is_dying else []
        again += [LOOK_AGAIN] if self._children.alive else []
        return min(again, default=None)

    def _look_for_master(self, poll: native.poll) -> None:
        if not self._is_searching:
            self._is_searching = True
            self._search.lost()
            with contextlib.suppress(KeyError, ValueError):  # the app may have closed it
                poll.unregister(self._channel)
            return  # perhaps that was all that kept us
        if self._search.due_in() > 0 or not self._search.try_now(self._channel):
            return
        self._is_searching = False
        self._retiring = False  # that was the wish of the one before
        poll.register(self._channel, native.POLLIN)
        self._greet(self._children.known())
        self._tell(self._children.told())

    def _hear(self) -> None:
        for message in self._channel.receive():
            match message.get("type"):
                case "fork":
                    self._keep_record()
                    self._fork(message["worker"], message["group"])
                case "keep":
                    self._is_kept = True
                    self._keep_record()
                case "noted":
                    self._children.forget(message["worker"])
                case "ping":
                    self._channel.send({"type": "pong"})
                case "identify":
                    self._identify()
                case "cut":
                    loglimit.look(message["log"], message["size"])
                case "retire":
                    self._retiring = True
                case _:
                    pass  # a newer master may say more than we know

    def _identify(self) -> None:
        """What the release's files are now, and which are others than at our start; empty if they
        cannot be read."""
        try:
            now = Content(self._config.release)
        except OSError:
            self._channel.send({"type": "identity", "hash": ""})
            return
        changed = self._content.changed(now)
        self._channel.send({"type": "identity", "hash": now.fingerprint, "changed": changed})

    def _tell_deaths(self) -> None:
        try:
            self._tell(self._children.bury())
            self._is_short = False
        except OSError:  # out of descriptors: who died is dead still in a while
            self._is_short = True

    def _tell(self, deaths: list[Death]) -> None:
        for death in deaths:
            self._channel.send(
                {
                    "type": "exited",
                    "worker": death.worker,
                    "pid": death.pid,
                    "status": death.status,
                }
            )

    def _fork(self, worker: bytes, group: str) -> None:
        config = self._config._replace(worker=worker, group=group)
        try:
            output.flush()  # else the worker would write it once more
            pid = native.fork() if self._forks else self._spawn(config)
        except OSError as error:
            why = f"cannot start a worker: {error.strerror}"
            self._channel.send({"type": "unforked", "worker": worker, "message": why})
            return
        if pid == 0:
            self._become_worker(config, worker)
        self._children.add(worker, pid, group)
        self._channel.send({"type": "forked", "worker": worker, "pid": pid, "start": _start(pid)})

    def _spawn(self, config: boot.Boot) -> int:
        argv = [sys.executable, "-P", "-m", "taskd.zygote", title.ROOM]
        return spawn.spawn(argv, boot.encode(config), spawn.environment())

    def _become_worker(self, config: boot.Boot, worker: bytes) -> NoReturn:
        """In the forked child: never returns into the zygote's frames."""
        try:
            signal.set_wakeup_fd(-1)
            native.handle_signal(signal.SIGCHLD, signal.SIG_DFL)
            self._channel.close()
            for fd in (*self._pipe, self._record):
                if fd >= 0:
                    native.close(fd)
            os.setsid()
            _tell_the_apps_loop()
            fork_sharing.seed_anew()
            from taskd.worker.process import run_worker

            run_worker(_join_group(config), worker)
        except BaseException:
            _report_and_die()


def _import_what_workers_need() -> None:
    """Before the freeze, so that every worker shares it; and all of taskd, since its files may be
    replaced (``pip install -U``) before the next fork: a worker must not be of two versions."""
    import psutil  # noqa: F401

    import taskd.posix.libc
    import taskd.protocol.notplain
    import taskd.protocol.tags
    import taskd.worker.process  # noqa: F401


def _tell_the_apps_loop() -> None:
    """A fork that went past gevent's own: its event loop would be shared with the zygote. It is
    made before the first task, which would be taken to have left its descriptors open."""
    gevent: Any = sys.modules.get("gevent")
    if gevent is not None:
        gevent.reinit()
        gevent.sleep(0)


def _report_and_die() -> NoReturn:
    import traceback

    try:
        traceback.print_exc()
    finally:
        output.leave(70)  # EX_SOFTWARE: a fault of the worker's own machinery, not of a task


def _drain(fd: int) -> None:
    with contextlib.suppress(BlockingIOError):
        while native.read(fd, 512):
            pass
