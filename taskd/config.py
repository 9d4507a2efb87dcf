"""``taskd.toml``: finding it, reading it, and its values.

Used by the master and by the command line. ``config_rules`` has the keys and the rule of each. A
``Config`` keeps the ``table`` that it was made from (text, numbers, lists and maps), so that a
deploy can hand it to the next image of the master, which does not read the file again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from taskd import config_limits, config_rules, paths
from taskd.config_rules import (
    DEFAULT_QUEUE,
    SIZES,
    new_keys as new_keys,
    why_no_variable as why_no_variable,
)
from taskd.errors import ConfigError
from taskd.record import Record

SYSTEM_FILE = "/etc/taskd/taskd.toml"
LEAST_CEILING = 256


class App(Record):
    """``[app]``: the app.

    ``release``: an absolute path, usually a symlink. ``python``: absolute, or relative to the
    release; None: ``.venv/bin/python`` if the release has one, else the daemon's own. ``fork``:
    "auto", "always" or "never". ``memory_reserve``: bytes of memory that must be available with one
    more revision; None: not checked. ``open_queues``: an operator's submission may name a queue
    that neither this file nor a task names. ``max_workers``: None: see ``Config.max_workers``.
    ``keep_connections``: a worker in which a task has left connections open is used again.
    ``setup``: a function of the app that is called after its import. ``connections_at_import``:
    "warn" or "refuse".
    ``env``, ``env_file``: as in the file, until a deploy has read them: then ``environment`` has
    the variables of both (see ``revision.environment``). ``schedules``: the sections
    ``[schedules.NAME]``, as in the file; None: there is none. ``limits``: see ``config_limits``.
    """

    release: str
    modules: list[str]
    python: str | None
    fork: str
    tasks_per_worker: int
    max_revisions: int
    probe: str | None = None
    memory_reserve: int | None = None
    open_queues: bool = False
    max_workers: int | None = None
    keep_connections: bool = False
    env: dict[str, str] | None = None
    env_file: str | None = None
    environment: dict[str, str] | None = None
    setup: str | None = None
    connections_at_import: str = "warn"
    schedules: dict[str, dict[str, Any]] | None = None
    limits: dict[str, dict[str, Any]] | None = None

    def is_proved_as(self, other: App) -> bool:
        """Whether a release's processes are the same with both: then it is one revision."""
        return self.proved() == other.proved()

    def proved(self) -> App:
        """What the release alone is concerned with; the rest is empty."""
        return self._replace(**_OF_DAEMON)

    def with_proved(self, kept: App) -> App:
        """This, but for what the release is concerned with, which is as in ``kept``."""
        return kept._replace(**{name: getattr(self, name) for name in _OF_DAEMON})


_OF_DAEMON: dict[str, Any] = {
    "release": "",
    "tasks_per_worker": 0,
    "max_revisions": 0,
    "memory_reserve": None,
    "open_queues": False,
    "max_workers": None,
    "env": None,
    "env_file": None,
}
"""Fields of App that the master alone heeds, or that others have been made from."""


class Daemon(Record):
    """``[daemon]``: times in seconds.

    ``orphan_grace``: how long a worker goes on without a master before its task leaves.
    ``stop_timeout``: how long a stop waits for the tasks to leave.
    ``cancel_grace``: how long a cancelled task has to leave before its worker is killed.
    ``drain_limit``: how long a revision may drain before its tasks must leave; None: no limit.
    ``prove_timeout``: how long a release has to import its app.
    ``timeout_grace``: how long a task whose time is over has to leave before it is killed.
    """

    orphan_grace: float
    stop_timeout: float
    cancel_grace: float
    drain_limit: float | None = None
    prove_timeout: float = 60.0
    timeout_grace: float = 30.0


class Access(Record):
    """``[access]``: names of the Unix groups that may use control.sock and submit.sock, and the
    limits of each user of submit.sock: tasks that are not over, bytes of their arguments, the
    highest priority. ``disk_reserve``: no submission is accepted if fewer bytes of the disk are
    free. None: no limit."""

    admin_groups: list[str]
    submit_groups: list[str]
    tasks_per_user: int | None
    bytes_per_user: int | None
    max_priority: int
    disk_reserve: int | None


class Hooks(Record):
    """``[hooks]``: the app's own commands around a deploy, as words; ``timeout`` in seconds."""

    before: list[str] | None
    after_drain: list[str] | None
    timeout: float


class Logs(Record):
    """``[logs]``: bytes of disk space that the log of one task may take; None: no limit."""

    max_size: int | None


class Retention(Record):
    """``[retention]``, and what a queue says instead: seconds for which a task is kept after it was
    over, by its final state; infinity: for ever."""

    succeeded: float
    failed: float
    cancelled: float


class Limits(Record):
    """The limits of each worker of a queue: bytes of memory; processes and threads. None: no limit
    by taskd."""

    memory: int | None = None
    pids: int | None = None


class Config(Record):
    """A checked ``taskd.toml``. ``queues``: the concurrency of each queue by name; ``limits``,
    ``retention``, ``timeouts`` (seconds of one try; None: no limit) and ``silences`` (seconds
    without a report): by the same names. The queue ``default`` is always there."""

    app: App
    daemon: Daemon
    access: Access
    hooks: Hooks
    logs: Logs
    queues: dict[str, int]
    limits: dict[str, Limits]
    retention: dict[str, Retention]
    timeouts: dict[str, float | None]
    silences: dict[str, float | None]
    source: str
    table: dict[str, Any]

    def concurrency(self, queue: str) -> int:
        """How many tasks of ``queue`` may run at once; another queue is as the default queue."""
        return self.queues.get(queue, self.queues[DEFAULT_QUEUE])

    @property
    def concurrency_elsewhere(self) -> int:
        """That of a queue that has no section."""
        return self.queues[DEFAULT_QUEUE]

    @property
    def retention_elsewhere(self) -> Retention:
        """That of a queue that has no section."""
        return self.retention[DEFAULT_QUEUE]

    def limits_of(self, queue: str) -> Limits:
        """The limits of a worker for tasks of ``queue``; another queue is as the default queue."""
        return self.limits.get(queue, self.limits[DEFAULT_QUEUE])

    def timeout(self, queue: str) -> float | None:
        """That of tasks of ``queue`` that say none; another queue is as the default queue."""
        return self.timeouts.get(queue, self.timeouts[DEFAULT_QUEUE])

    def silent_after(self, queue: str) -> float | None:
        """The same for how long a running task may report nothing before that is told."""
        return self.silences.get(queue, self.silences[DEFAULT_QUEUE])

    @property
    def max_workers(self) -> int:
        """How many tasks of all queues may run at once. Default: the sum of the file's queues, but
        at least LEAST_CEILING, for queues that only tasks name."""
        return self.app.max_workers or max(LEAST_CEILING, sum(self.queues.values()))

    @classmethod
    def from_table(cls, table: dict[str, Any], source: str) -> Config:
        """Check a parsed table; ``source`` names the file in errors. Raises ConfigError."""
        sections = config_rules.read(table, source)
        queues = config_rules.read_queues(table, source)
        return cls(
            app=App(
                **sections["app"],
                schedules=config_rules.read_schedules(table, source),
                limits=config_limits.read(table, source),
            ),
            daemon=Daemon(**sections["daemon"]),
            access=Access(**sections["access"]),
            hooks=Hooks(**sections["hooks"]),
            logs=Logs(**sections["logs"]),
            queues={name: each["concurrency"] for name, each in queues.items()},
            limits={
                name: Limits(each["memory_max"], each["pids_max"]) for name, each in queues.items()
            },
            retention={
                name: Retention(
                    *(
                        usual if (own := each[f"keep_{state}"]) is None else own
                        for state, usual in sections["retention"].items()
                    )
                )
                for name, each in queues.items()
            },
            timeouts={name: each["timeout"] for name, each in queues.items()},
            silences={name: each["silent_after"] for name, each in queues.items()},
            source=source,
            table=table,
        )


def find(option: str | None, environ: Mapping[str, str]) -> str | None:
    """The file to read: ``--config``, $TASKD_CONFIG, the user's, the system's; None: no file.

    A file that was named is returned whether or not it exists: reading it then gives the error.
    """
    named = option or environ.get("TASKD_CONFIG")
    if named:
        return named
    own = os.path.join(paths.config_home(environ, os.getuid()), "taskd", "taskd.toml")
    return next((path for path in (own, SYSTEM_FILE) if os.path.exists(path)), None)


def load(path: str) -> Config:
    """Read and check the file. Raises ConfigError naming it and what is wrong."""
    import tomllib  # only here: a master that execs itself carries the parsed table over

    try:
        if not os.path.isfile(path) and os.path.exists(path):
            raise ConfigError(f"the configuration {path} is not a file")
        with open(path, "rb") as file:
            table = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # of TOML or UTF-8, or beyond what Python reads
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    import grp

    config = Config.from_table(table, path)
    for key in ("admin_groups", "submit_groups"):
        for name in getattr(config.access, key):
            try:
                grp.getgrnam(name)
            except KeyError:
                raise ConfigError(
                    f"{config.source}: access.{key}: there is no group {name!r} on this machine: "
                    f"make it with `groupadd {name}`, or take it out"
                ) from None  # its members would be refused without a word
    return config


def size_text(count: int) -> str:
    """Bytes as in the file, never rounded up: ``999B``, ``48MiB``, ``1.5GiB``."""
    unit = next((each for each in reversed(SIZES) if count >= SIZES[each]), "B")
    tenths = count * 10 // SIZES[unit]
    return f"{tenths / 10}{unit}" if tenths < 100 and tenths % 10 else f"{tenths // 10}{unit}"
