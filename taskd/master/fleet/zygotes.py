"""The zygotes: started, listened to, told to end, and buried.

The master spawns a zygote (never forks), and the zygote connects to worker.sock. Its hello proves
which one it is: it has the random id that the master gave it, and comes from the pid that the
master started. If a zygote dies, its workers go on as the master's children, and a new zygote is
started when one is needed again.

Notices: ``greeted``: its hello came; a listener may raise ProtocolError. ``told``: any other
message. ``ready``: it can fork, perhaps again. ``died``: with its wait status, if that is known.
"""

from __future__ import annotations

import os
from typing import Any

from taskd import log
from taskd.config import Config
from taskd.master.fleet.orphans import Orphans
from taskd.master.fleet.revision import Revision
from taskd.master.fleet.revisions import Revisions
from taskd.master.loop import Entry, Kind, Loop, Messages, Notice
from taskd.model.endings import death_in_words
from taskd.model.zygote import ZygoteEvent, ZygoteState
from taskd.paths import Places
from taskd.posix import process, spawn, title
from taskd.protocol import boot
from taskd.revision import record, release

DEAF_WITHIN = 3.0
"""Seconds that a zygote which has lost its connection has to connect again."""

OWN_END = 20.0
"""Times the deadline of an import, after which a timer of the kernel ends the zygote. That timer
counts time on the clock; the master's Deadline counts the process's own time and reports why, and
must come first on a busy machine too."""


class Zygotes:
    def __init__(
        self, loop: Loop, config: Config, places: Places, revisions: Revisions, orphans: Orphans
    ) -> None:
        self._loop = loop
        self._config = config
        self._places = places
        self._revisions = revisions
        self._orphans = orphans
        self.greeted: Notice[[Revision, dict[str, Any]]] = Notice()
        self.told: Notice[[Revision, dict[str, Any]]] = Notice()
        self.ready: Notice[[Revision]] = Notice()
        self.died: Notice[[Revision, int | None]] = Notice()

    def carried(self) -> list[Entry]:
        return [
            Entry(revision.zygote.channel.wire.fd, Kind.ZYGOTE, revision.channel_name)
            for revision in self._revisions
            if revision.zygote.channel is not None
        ]

    # ── beginning and ending ─────────────────────────────────────────────────────────────────

    def start(self, revision: Revision, within: float) -> None:
        """Spawn the revision's zygote. Raises OSError or DeployRefused if the release's Python
        cannot be started."""
        zygote, places = revision.zygote, self._places
        python = release.interpreter(revision.path, revision.app.python)
        if zygote.id:
            record.remove(places.zygotes, zygote.id)
        zygote.python, zygote.id, zygote.is_foreign = python, os.urandom(16), False
        orders = boot.Boot(
            id=zygote.id,
            socket=places.worker_socket,
            release=revision.path,
            revision=revision.name,
            modules=revision.app.modules,
            fork=revision.app.fork,
            slots=places.slots,
            records=places.zygotes,
            sockets=places.runtime,
            import_within=within * OWN_END,
            number=revision.number,
            app=revision.app._asdict(),
            orphan_grace=self._config.daemon.orphan_grace,
        )
        argv = [python, "-P", "-m", "taskd.zygote", title.ROOM]
        env = release.environment(python, revision.app.environment)
        zygote.pid = spawn.spawn(argv, boot.encode(orders), env)
        zygote.start = process.start_time(zygote.pid) or 0  # a child: there until it is reaped
        zygote.take(ZygoteEvent.SPAWN)
        log.info("zygote started", revision=revision.name, pid=zygote.pid)

    def retire(self, revision: Revision) -> bool:
        """Tell the zygote to end once its workers have; kill it if it is not connected. False if it
        was told before, or there is none."""
        if revision.zygote.state in (ZygoteState.ABSENT, ZygoteState.RETIRING):
            return False
        revision.zygote.take(ZygoteEvent.RETIRE)
        if not revision.zygote.tell({"type": "retire"}):
            self.kill(revision)
        return True

    def kill(self, revision: Revision) -> None:
        self._orphans.kill(revision.zygote.pid)

    def watch(self, revision: Revision) -> None:
        """Have ``on_death`` called for a zygote that is not the master's child."""
        zygote = revision.zygote
        assert zygote.pid is not None
        who = process.Identity(zygote.pid, zygote.start, process.boot_id())
        self._orphans.watch(who, lambda: self.on_death(revision, None))

    # ── messages and deaths ──────────────────────────────────────────────────────────────────

    def greet(self, revision: Revision, channel: Messages, message: dict[str, Any]) -> None:
        """The zygote's hello came, with the right id from the right pid. Raises ProtocolError."""
        zygote = revision.zygote
        zygote.channel = channel
        zygote.start = zygote.start or message["start"]
        zygote.version = message["version"]
        zygote.take(ZygoteEvent.HELLO)
        self.listen(revision)
        self.greeted(revision, message)
        self._loop.soon(lambda: self.ready(revision))

    def listen(self, revision: Revision) -> None:
        channel = revision.zygote.channel
        assert channel is not None
        channel.on_message = lambda message: self.told(revision, message)
        channel.wire.on_lost = lambda: self._on_lost(revision)

    def _on_lost(self, revision: Revision) -> None:
        """The connection ended, which is no proof of death. A zygote that lives on without a
        connection (its app closed it) can do nothing, and is killed."""
        zygote, pid = revision.zygote, revision.zygote.pid
        zygote.channel = None
        zygote.take(ZygoteEvent.LOSE)

        def end_deaf() -> None:
            if pid is not None and zygote.pid == pid and zygote.channel is None:
                self.kill(revision)

        self._loop.after(DEAF_WITHIN, end_deaf)

    def on_death(self, revision: Revision, status: int | None) -> None:
        """The zygote was reaped, or it is not the master's child and is dead (status None)."""
        zygote = revision.zygote
        how = death_in_words(status)
        log.info("zygote gone", revision=revision.name, pid=zygote.pid, how=how)
        if zygote.channel is not None:
            zygote.channel.wire.drain()  # its last messages: workers' deaths and forks
        if zygote.channel is not None:
            zygote.channel.wire.close()
            self._on_lost(revision)
        zygote.pid = None
        zygote.take(ZygoteEvent.DIED)
        self.died(revision, status)
