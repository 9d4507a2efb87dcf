"""The zygote: one per revision. It imports the app, then only forks workers and reaps them.

It keeps each exit status until a master has noted it, so that a master that is replaced, or dies,
misses none. It has no threads and one wait point.

Invariants: a worker's exit is told only once its whole tree is gone (``Children``); the heap is
frozen before the first fork; a zygote outlives its master: it keeps its workers and looks for the
next master, which learns from it (and from its record on disk, see ``revision.record``) which
workers live, and each exit that no master has noted.
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
from taskd.protocol import boot, worker as protocol
from taskd.revision import record
from taskd.revision.content import Content
from taskd.worker import loglimit, output
from taskd.worker.channel import Channel, MasterSearch
from taskd.zygote import app, fork_sharing
from taskd.zygote.children import Children, Death

SHORT_AGAIN = 500
"""Milliseconds until a zygote that is out of descriptors tries again to reap."""

GROUP_AGAIN = 50
"""Milliseconds until the control group of a dead worker is checked again: a process that is still
dying in it may be no child of the zygote, which then gets no SIGCHLD."""

LOOK_AGAIN = 3_000
"""Milliseconds between two checks for dead workers without a SIGCHLD: a hook of the app's that runs
at each fork may block the signal again."""

IDLE_GRACE = 10.0
"""Seconds that a zygote without workers waits for the next master: its end costs only another
import of the app."""


def main() -> NoReturn:
    """Run until retired (or orphaned) and the last worker is gone; never returns."""
    parent = os.getppid()
    config = _read_boot()
    output.be_lenient()
    del sys.argv[1:]
    worker = config.worker
    if worker is not None:  # this process is one worker of an app that cannot be forked
        config = _join_group(config)
        from taskd.worker.process import run_worker

        if (broken := app.load(config)) is not None:
            sys.exit(f"taskd worker: the app no longer imports: {broken.message}")
        run_worker(config, worker)
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
    """Read the configuration from descriptor 0, and put /dev/null there."""
    with os.fdopen(os.dup(0), "rb") as file:
        config = boot.decode(file.read())
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(null, 0)
    native.close(null)
    return config


def _join_group(config: boot.Boot) -> boot.Boot:
    """Join the control group, in a worker, before code of the app's runs in it. On an error the
    worker runs without a group and reports the error."""
    if not config.group:
        return config
    try:
        cgroup.join(config.group)
    except OSError as error:
        return config._replace(group="", ungrouped=error.strerror or str(error))
    return config


class Zygote:
    """The zygote's one loop: messages from the master, deaths of workers."""

    def __init__(self, config: boot.Boot, channel: Channel) -> None:
        self._config = config
        self._channel = channel
        self._environment = spawn.environment()  # for spawned workers: without what the app adds
        self._retiring = False
        self._search = MasterSearch(config.socket)
        self._is_searching = False
        self._is_short = False  # out of descriptors
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
        """Tell the master the release's identity, import it, and send its manifest. Exits if it is
        broken, and with the master before that. ``master``: its pid."""
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
        if (broken := app.load(self._config)) is not None:
            self._refuse(broken.message, broken.traceback, broken.imports)
        process.end_with_parent(0)
        self._children = Children()  # the children that exist now are the app's own
        self._forks, warnings = app.may_fork(self._config.fork)
        if self._forks:
            shared = fork_sharing.opened_since(before)
            refuses = (self._config.app or {}).get("connections_at_import") == "refuse"
            if refuses and (why := shared.refusal()) is not None:
                self._refuse(why, imports=True)
            warnings += shared.warnings()
        fork_sharing.keep_directories()
        _import_what_workers_need()
        gc.collect()
        gc.freeze()  # the collector never writes to these pages again: they stay shared
        from taskd import tasks

        self._tasks = tasks.manifest()
        self._pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)  # who says it is ready can serve
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

    def _refuse(self, message: str, traceback: str = "", imports: bool = False) -> NoReturn:
        self._channel.send(
            {"type": "broken", "message": message, "traceback": traceback, "imports": imports}
        )
        output.leave(1)

    def _keep_record(self) -> None:
        """Write the record by which the next master adopts this zygote, once the revision serves.
        On a full disk it is tried again with the next fork; if the master dies before that, the
        next one finds only the workers."""
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
        """Run until retired or without a master, no worker is left and every exit is noted."""
        awake, waker = self._pipe
        native.handle_signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        poll = native.poll()
        poll.register(awake, native.POLLIN)
        poll.register(self._channel, native.POLLIN)
        self._tell_deaths()  # a worker may have died before the signal was caught
        while not self._is_done():
            for fd, _ in poll.poll(self._timeout()):
                if fd == awake:
                    with contextlib.suppress(BlockingIOError):
                        while native.read(awake, 512):
                            pass
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
            return True  # no next master would know of this zygote
        grace = self._config.orphan_grace
        if self._children.is_empty:
            grace = 0.0 if self._retiring else min(grace, IDLE_GRACE)
        return self._search.lasted >= grace

    def _timeout(self) -> float | None:
        """Milliseconds until the loop has to check something without an event."""
        again = [self._search.due_in() * 1000] if self._is_searching else []
        again += [SHORT_AGAIN] if self._is_short else []
        again += [GROUP_AGAIN] if self._children.dying else []
        again += [LOOK_AGAIN] if self._children.alive else []
        return min(again, default=None)

    def _look_for_master(self, poll: native.poll) -> None:
        if not self._is_searching:
            self._is_searching = True
            self._search.lost()
            with contextlib.suppress(KeyError, ValueError):  # the app may have closed it
                poll.unregister(self._channel)
            return  # the zygote may be done now (``_is_done``)
        if self._search.due_in() > 0 or not self._search.try_now(self._channel):
            return
        self._is_searching = False
        self._retiring = False  # the former master's wish
        poll.register(self._channel, native.POLLIN)
        self._greet(self._children.known())
        self._tell(list(self._children.unnoted.values()))

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
                    pass  # of a newer protocol than this code's

    def _identify(self) -> None:
        """Tell the fingerprint of the release's files, and which have changed since the start;
        empty if they cannot be read."""
        try:
            now = Content(self._config.release)
        except OSError:
            self._channel.send({"type": "identity", "hash": ""})
            return
        self._channel.send(
            {"type": "identity", "hash": now.fingerprint, "changed": self._content.changed(now)}
        )

    def _tell_deaths(self) -> None:
        try:
            self._tell(self._children.reap())
            self._is_short = False
        except OSError:  # out of descriptors: tried again after SHORT_AGAIN
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
            output.flush()  # else the worker would write the same text again
            if self._forks:
                pid = native.fork()
            else:
                argv = [sys.executable, "-P", "-m", "taskd.zygote", title.ROOM]
                pid = spawn.spawn(argv, boot.encode(config), self._environment)
        except OSError as error:
            why = f"cannot start a worker: {error.strerror}"
            self._channel.send({"type": "unforked", "worker": worker, "message": why})
            return
        if pid == 0:
            self._become_worker(config, worker)
        self._children.add(worker, pid, group)
        try:
            start = process.start_time(pid) or 0
        except OSError:
            start = 0  # not known: the worker tells it itself
        self._channel.send({"type": "forked", "worker": worker, "pid": pid, "start": start})

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
            # taskd forks past gevent's own fork: without reinit its event loop would be shared with
            # the zygote. Now, since the first task would seem to have left its descriptors open.
            gevent: Any = sys.modules.get("gevent")
            if gevent is not None:
                gevent.reinit()
                gevent.sleep(0)
            fork_sharing.seed_numpy()
            from taskd.worker.process import run_worker

            run_worker(_join_group(config), worker)
        except BaseException:
            import traceback

            try:
                traceback.print_exc()
            finally:
                output.leave(70)  # EX_SOFTWARE: a fault of the worker's own code, not of a task


def _import_what_workers_need() -> None:
    """Import before the freeze, so that workers share the memory; and all of taskd, since its files
    may be replaced (``pip install -U``) before the next fork: a worker must not be of two versions.
    """
    import psutil  # noqa: F401

    import taskd.posix.libc
    import taskd.protocol.notplain
    import taskd.protocol.tags
    import taskd.worker.process  # noqa: F401
