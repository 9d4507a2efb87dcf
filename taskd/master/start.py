"""A start of the daemon: takes the lock, proves the confirmed release, then serves.

Without ``confirmed`` (the first start, or `taskd run --release PATH`) the release is proved as a
deploy proves it, and written to ``confirmed`` only then.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from collections.abc import Callable

from taskd import config, log, paths
from taskd.errors import ConfigError, DeployRefused, Error, StoreError
from taskd.handoff import old
from taskd.master.fleet import Revision
from taskd.master.loop import ALL, PIDFILE, Entry, Kind, LifeEvent, in_words, take_locks
from taskd.master.master import Master
from taskd.master.recovery import misplaced
from taskd.paths import CONTROL_SOCKET, SUBMIT_SOCKET, WORKER_SOCKET
from taskd.posix import pidfile, process, sockets, spawn, tree
from taskd.revision import confirmed, environment, marker, proved, rejected, release
from taskd.store import health
from taskd.store.queries import RunningRows
from taskd.store.values import Row
from taskd.systemd import activation
from taskd.upgrade import image

MEET_WITHIN = 5.0
"""Seconds that the zygote of the daemon before has to connect to this one."""

CONFIRMED_TIMES = 10.0
"""Times ``prove_timeout`` that a confirmed release has at a start. It was proved before, and no
other release could serve instead: to wait is better than to serve nothing."""

_PROBE = "import taskd.master.start"
"""Asks a release's Python whether it has a taskd that can be the daemon."""


def main(
    config_path: str | None, release_path: str | None, on_ready: Callable[[], None] | None = None
) -> int:
    """Run the daemon until it is told to stop. Returns its exit status (0, or 1 with the reason
    on stderr); ``on_ready`` is called once it serves."""
    try:
        master, chosen = _prepare(config_path, release_path)
    except (Error, OSError) as error:
        log.why_it_ends(in_words(error))
        return 1
    start = Start(master, chosen, release_path is not None, on_ready)
    start.run()
    master.loop.run()
    master.end()
    if start.failure is not None:
        log.why_it_ends(start.failure)
        return 1
    return 0


def _prepare(config_path: str | None, release_path: str | None) -> tuple[Master, str]:
    """All that comes before the first zygote: configuration, directories, lock, store, sockets."""
    path = config.find(config_path, os.environ)
    if path is None:
        raise ConfigError(
            "no configuration: name one with --config or $TASKD_CONFIG, or write "
            f"{config.SYSTEM_FILE}"
        )
    settings = config.load(path)
    settings = settings._replace(source=os.path.abspath(settings.source))
    _open_standard()
    places = paths.places(os.environ, os.getuid())
    paths.ensure(places)
    _disown_inherited()
    chosen = _choose(places.confirmed, settings, release_path)
    settings = _as_proved(settings, places, chosen, release_path is not None)
    _hand_over_to(release.interpreter(chosen, settings.app.python), path, release_path)
    given = _take_sockets(places)
    master = Master(settings, places)
    old.connect(master)
    master.statedir.locks = take_locks(places)
    before = frozenset(tree.children())
    process.become_subreaper()
    master.children.not_ours = before
    health.check_log(places.store)
    master.storage.open()
    master.storage.check()
    master.revisions.rejected = rejected.read(places.state)
    master.after_drain.remember()
    master.listeners.given = frozenset(given)
    for name in ALL:
        if name in given:
            master.listeners.sockets[name] = given[name]
        else:
            _check_unused(master.listeners.path(name))
            master.listeners.make(name)
    if (path := pidfile.wanted()) is not None:
        master.statedir.locks[PIDFILE] = Entry(pidfile.take(path), Kind.LOCK, PIDFILE)
    return master, chosen


def _take_sockets(places: paths.Places) -> dict[str, socket.socket]:
    """The listening sockets that a service manager has given to this process, by name."""
    wanted = {os.path.join(places.runtime, name): name for name in (CONTROL_SOCKET, SUBMIT_SOCKET)}
    taken = activation.take(os.environ, os.getpid(), wanted)
    for what in taken.refused:
        expected = " or ".join(f"ListenStream={path}" for path in wanted)
        log.warning(f"systemd gave a socket that is none of the daemon's: {what}; {expected} is")
    return taken.listeners


def _check_unused(path: str) -> None:
    """Raises ConfigError if another daemon listens on ``path``: one with another state directory,
    and the same runtime directory by mistake. Its sockets must not be replaced."""
    try:
        sockets.connect(path, timeout=1.0).close()
    except OSError:
        return
    raise ConfigError(
        f"another daemon listens on {path}: give this one a runtime directory of its own "
        "($RUNTIME_DIRECTORY, or another $XDG_RUNTIME_DIR)"
    )


def _hand_over_to(python: str, config_path: str, release_path: str | None) -> None:
    """Exec the taskd of the release, if the release has a Python of its own.

    So a start runs the same daemon that the last deploy left, and ``taskd run`` in the unit is
    a launcher that never needs to change. Returns if this process is that daemon already. Raises
    DeployRefused if that Python has no taskd.
    """
    os.environ.setdefault(spawn.LAUNCHER, sys.executable)
    handed_over = os.environ.pop(spawn.HANDED_OVER, None)
    if python in (release.settled(sys.executable), handed_over):
        return
    probe = [python, "-P", "-c", _PROBE]
    status = os.waitpid(spawn.spawn(probe, b"", spawn.environment()), 0)[1]
    if status != 0:
        raise DeployRefused(
            f"{python}, the Python of the release, cannot import taskd (see above): install "
            "taskd-supervisor into it, or name another one as [app] python"
        )
    words = [python, "-P", "-m", "taskd", "run", "--config", os.path.abspath(config_path)]
    words += ["--release", os.path.abspath(release_path)] if release_path else []
    os.execve(python, words, os.environ | {spawn.HANDED_OVER: python})


def _open_standard() -> None:
    """Open /dev/null as those of descriptors 0 to 2 that the caller has closed: else the next files
    that this process opens would be the input and output of its children."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)


def _disown_inherited() -> None:
    """Have the descriptors that were open at the start closed in children and in the next image,
    without systemd's sockets: the taskd of a release, exec'd next, may be the one to take them."""
    given = activation.announced(os.environ, os.getpid())
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in given:
            with contextlib.suppress(OSError):  # the descriptor of the listing itself
                os.set_inheritable(int(name), False)


def _choose(confirmed_path: str, settings: config.Config, release_path: str | None) -> str:
    """The release to start: the one named on the command line, else the confirmed one, else the
    symlink's. Raises DeployRefused."""
    if release_path is not None:
        return release.resolve(release_path)
    found = confirmed.read(confirmed_path)
    if found is None:
        return release.resolve(settings.app.release)
    if not os.path.isdir(found.release):
        raise DeployRefused(
            f"the release that was deployed last, {found.release}, is gone; "
            + _another(confirmed_path, settings.app.release, found.previous)
        )
    return found.release


def _as_proved(
    settings: config.Config, places: paths.Places, chosen: str, is_named: bool
) -> config.Config:
    """``settings`` with what the confirmed release was proved with, whatever the files say now. If
    that is not known, or the operator named the release, with the environment as it is read now.
    Raises ConfigError."""
    found = None if is_named else confirmed.read(places.confirmed)
    if found is not None and found.release == chosen and found.settings:
        try:
            kept = proved.read(places.proved, found.settings)
        except ConfigError as error:
            log.warning(f"{error}: taskd.toml and the environment are read as they are now")
        else:
            if differing := _differing(kept, settings.app):
                why = f"{settings.source} has another [app] {', '.join(differing)}"
                log.warning(f"{why} than was deployed; `taskctl reload` takes that up")
            return settings._replace(app=settings.app.with_proved(kept))
    app, warnings = environment.resolve(settings.app, chosen)
    for warning in warnings:
        log.warning(warning)
    return settings._replace(app=app)


def _differing(kept: config.App, now: config.App) -> list[str]:
    """The keys that differ, without what only a deploy reads."""
    pairs = zip(config.App._fields, kept.proved(), now.proved(), strict=True)
    return [name for name, one, other in pairs if one != other and name != "environment"]


def _another(confirmed_path: str, link: str, previous: str | None) -> str:
    """Which release that exists the next start could run, and the command for that."""
    current = os.path.realpath(link)
    if os.path.isdir(current):
        which, one = f"[app] release = {link!r} now points to {current}", current
    elif previous is not None and os.path.isdir(previous):
        which, one = f"the one before it, {previous}, is there", previous
    else:
        how = confirmed.how_to_name(confirmed_path)
        return f"to have the next start run another one, which is at PATH: {how}"
    return f"{which}. To have the next start run that one: " + confirmed.how_to_name(
        confirmed_path, one
    )


def _tell_of_a_crash(
    master: Master, serving: Revision, cut_off: str, before: confirmed.Confirmed | None
) -> None:
    """Report that the daemon before this one died in a deploy of ``cut_off``, after its exec.

    If ``confirmed`` names that release, the deploy was decided: only the steps that come after are
    done here. Otherwise the release is remembered as rejected.
    """
    name = master.revisions.name_of(cut_off)
    if before is not None and before.release == cut_off:
        why = f"the daemon crashed right after the deploy of {name}"
        if before.previous is not None:
            master.after_drain.promise(before.previous)
    else:
        why = f"the deploy of {name} ended in a crash of the daemon"
        master.revisions.remember(cut_off, why)
    master.life.note = f"{why}; {serving.name} serves"
    log.error(master.life.note)
    marker.remove(master.places.state)


class Start:
    """From the first zygote until the daemon serves; ``failure``: why it does not, else None.

    ``is_named``: the operator has named the release on the command line.
    """

    def __init__(
        self, master: Master, chosen: str, is_named: bool, on_ready: Callable[[], None] | None
    ) -> None:
        self._master = master
        self._chosen = chosen
        self._is_named = is_named
        self._on_ready = on_ready
        self.failure: str | None = None

    def run(self) -> None:
        self._master.systemd.begin()
        self._master.catch_signals()
        image.let_signals_through()  # whatever the caller had blocked
        self._guarded(self._begin)

    def _guarded(self, step: Callable[[], None]) -> None:
        try:
            step()
        except (Error, OSError) as error:  # for example ENOSPC for ``confirmed``
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self.failure = in_words(error)
        self._master.stop.keeps = True  # workers of the daemon before go on
        self._master.stop.begin()
        self._master.loop.soon(self._master.loop.stop)

    def _begin(self) -> None:
        """Raises Error, OSError."""
        master = self._master
        misplaced.put_right(master.places.slots)
        with contextlib.suppress(OSError):
            os.unlink(master.places.swept)
            master.unowned.was_swept = True
        master.storage.gather(
            RunningRows(), lambda rows: self._guarded(lambda: self._restore(rows))
        )

    def _restore(self, rows: list[Row] | StoreError) -> None:
        """Find again what lives on from the daemon before this one. Raises Error, OSError."""
        if isinstance(rows, StoreError):
            raise rows
        self._master.survivors.restore(rows)
        self._master.unowned.sweep(lambda: self._guarded(self._begin_to_hear))

    def _begin_to_hear(self) -> None:
        """Raises Error, OSError."""
        master = self._master
        if master.life.is_stopping:  # asked to stop meanwhile
            return
        master.listeners.hear(WORKER_SOCKET)
        before = master.survivors.serving(self._chosen)
        if before is None:
            self._prove()
            return

        def met(as_it_was: bool) -> None:
            """The zygote that served before is back (or it is not): go on with it, or prove."""
            if as_it_was:
                self._proven(before)
            else:
                self._prove()

        master.expected.begin(before, MEET_WITHIN, met)

    def _prove(self) -> None:
        app, within = self._master.config.app, self._master.config.daemon.prove_timeout
        found = confirmed.read(self._master.places.confirmed)
        if found is not None and found.release == self._chosen and not self._is_named:
            within *= CONFIRMED_TIMES
        self._master.proofs.begin(self._chosen, app, within, self._proven, is_another=True)

    def _proven(self, outcome: Revision | DeployRefused) -> None:
        if self._master.life.is_stopping:  # asked to stop meanwhile: no failure
            return
        if isinstance(outcome, DeployRefused):
            self._fail(outcome)
        else:
            self._guarded(lambda: self._go(outcome))

    def _go(self, outcome: Revision) -> None:
        """Confirm the release that was proved, and serve. Raises Error, OSError."""
        master = self._master
        if master.storage.damage is not None:
            raise master.storage.damage
        before = confirmed.read(master.places.confirmed)
        self._confirm(outcome, before)
        master.revisions.confirm(outcome)
        if (cut_off := marker.read(master.places.state)) is not None:
            _tell_of_a_crash(master, outcome, cut_off, before)
        master.life.take(LifeEvent.SERVE)
        master.serve()
        # The master before may have died before it asked the tasks that move to leave.
        accepted = before.accepted if before and before.release == outcome.path else ()
        master.draining.let_old_ones_leave(outcome, accepted)
        log.info("ready", revision=outcome.name, pid=os.getpid())
        master.systemd.ready()
        if self._on_ready is not None:
            self._on_ready()

    def _confirm(self, proven: Revision, before: confirmed.Confirmed | None) -> None:
        """Have later starts go by what was proved now. Raises OSError, but not for the release that
        ``before`` names."""
        path, fingerprint = self._master.places.confirmed, proven.fingerprint or ""
        try:
            settings = self._master.revisions.keep(proven)
            now = confirmed.Confirmed(proven.path, None, fingerprint, time.time(), (), settings)
            if before is None or before.release != proven.path:
                confirmed.write(path, now.after(before))
            elif before.settings != settings:
                confirmed.write(path, before._replace(settings=settings))
        except OSError as error:
            if before is None or before.release != proven.path:
                raise
            why = "what the release was proved with is not kept for the next start"
            log.warning(why, why=in_words(error))
