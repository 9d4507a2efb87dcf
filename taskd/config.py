"""``taskd.toml``: finding it, reading it, and every key it may have.

Runs in the master and in the command line. ``RULES`` is the whole format: section, key, how its
value is checked, what it is when left out. A key or section that is not there is an error, and so
is a value of another type: a misspelt key must not pass for a default. A ``Config`` keeps the
``table`` it was made from, which holds text, numbers, lists and maps alone, so that it can be
carried to the next image of the master without a second look at the file.

Longer than 400 lines because the whole format, key by key, is in one place.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from taskd import paths
from taskd.errors import ConfigError
from taskd.record import Record

SYSTEM_FILE = "/etc/taskd/taskd.toml"
DEFAULT_QUEUE = "default"
DEFAULT_CONCURRENCY = 8
LEAST_CEILING = 256
LONGEST_NAME = 200  # of a queue, as in a submission

_UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_LONGEST = 10 * 365 * 86400.0
_SIZES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_LARGEST = 1 << 60
_SMALLEST_LOG = 64 << 10
_LEAST_MEMORY = 16 << 20  # what a worker takes itself, and a little
_HIGHEST = 2**31 - 1  # priority, as in a submission
_LEAST_PIDS = 8  # a worker itself has a few threads


class App(Record):
    """``[app]``: what is run.

    ``release``: an absolute path, mostly a symlink. ``python``: absolute, or relative to the
    release; None: ``.venv/bin/python`` if the release has one, else the daemon's own.
    ``fork``: "auto", "always" or "never". ``memory_reserve``: bytes that must be left once one more
    revision lives; None: nobody looks. ``open_queues``: an operator's submission may name a queue
    that nothing else names. ``max_workers``: None: see ``Config.max_workers``.
    ``keep_connections``: a worker in which a task has left connections open is used again.
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


class Daemon(Record):
    """``[daemon]``: how long it waits, in seconds.

    ``orphan_grace``: how long a worker without a master goes on before it leaves.
    ``stop_timeout``: how long a stop waits for the tasks to leave.
    ``cancel_grace``: between asking a cancelled task to leave and killing it.
    ``drain_limit``: how long a revision may drain before its tasks must leave; None: for ever.
    ``prove_timeout``: how long a release has to import its app.
    """

    orphan_grace: float
    stop_timeout: float
    cancel_grace: float
    drain_limit: float | None = None
    prove_timeout: float = 60.0


class Access(Record):
    """``[access]``: names of the Unix groups that may use control.sock and submit.sock, and what
    submit.sock takes from each user: tasks that are not over, bytes of their arguments, the highest
    priority. ``disk_reserve``: bytes of the disk that it leaves. None: no limit."""

    admin_groups: list[str]
    submit_groups: list[str]
    tasks_per_user: int | None
    bytes_per_user: int | None
    max_priority: int
    disk_reserve: int | None

    @property
    def groups(self) -> dict[str, list[str]]:
        """By key."""
        return {"admin_groups": self.admin_groups, "submit_groups": self.submit_groups}


class Hooks(Record):
    """``[hooks]``: the app's own commands around a deploy, as words; ``timeout`` in seconds."""

    before: list[str] | None
    after_drain: list[str] | None
    timeout: float


class Logs(Record):
    """``[logs]``: bytes of room that the log of one task may take; None: without a limit."""

    max_size: int | None


class Limits(Record):
    """What each worker of a queue may use at once: bytes of memory; processes and threads. None:
    no limit of ours."""

    memory: int | None = None
    pids: int | None = None


class Config(Record):
    """A checked ``taskd.toml``. ``queues``: name to concurrency; ``limits``: by the same names;
    ``default`` is always there."""

    app: App
    daemon: Daemon
    access: Access
    hooks: Hooks
    logs: Logs
    queues: dict[str, int]
    limits: dict[str, Limits]
    source: str
    table: dict[str, Any]

    def concurrency(self, queue: str) -> int:
        """How many tasks of ``queue`` may run at once; a queue not named has the default's."""
        return self.queues.get(queue, self.queues[DEFAULT_QUEUE])

    def limits_of(self, queue: str) -> Limits:
        """What a worker may use for a task of ``queue``; one not named has the default's."""
        return self.limits.get(queue, self.limits[DEFAULT_QUEUE])

    @property
    def max_workers(self) -> int:
        """How many tasks of all queues may run at once. Default: whatever the queues of the file
        may run, and LEAST_CEILING at least, for queues that only tasks name."""
        return self.app.max_workers or max(LEAST_CEILING, sum(self.queues.values()))

    @classmethod
    def from_table(cls, table: dict[str, Any], source: str) -> Config:
        """Check a parsed table; ``source`` names the file in errors. Raises ConfigError."""
        _known(table, [*RULES, "queues"], source, "section")
        sections = {name: _section(table, name, source) for name in RULES}
        queues, limits = _queues(table.get("queues", {}), source)
        return cls(
            app=App(**sections["app"]),
            daemon=Daemon(**sections["daemon"]),
            access=Access(**sections["access"]),
            hooks=Hooks(**sections["hooks"]),
            logs=Logs(**sections["logs"]),
            queues=queues,
            limits=limits,
            source=source,
            table=table,
        )


def find(option: str | None, environ: Mapping[str, str]) -> str | None:
    """The file to read: ``--config``, $TASKD_CONFIG, the user's, the system's; None: no file.

    One that was named is returned whether or not it exists, so that reading it gives the error.
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
    config = Config.from_table(table, path)
    _check_groups(config)
    return config


def _check_groups(config: Config) -> None:
    """A group that is not there would keep out those that are meant, without a word."""
    import grp

    for key, names in config.access.groups.items():
        for name in names:
            try:
                grp.getgrnam(name)
            except KeyError:
                raise ConfigError(
                    f"{config.source}: access.{key}: there is no group {name!r} on this machine: "
                    f"make it with `groupadd {name}`, or take it out"
                ) from None


class _WrongError(Exception):
    """The value does not fit its rule; the rule's text says what was expected."""


class _Rule(Record):
    check: Callable[[Any], Any]
    expected: str
    default: Any = None
    required: bool = False


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise _WrongError
    return value


def _absolute_path(value: Any) -> str:
    if not os.path.isabs(_text(value)):
        raise _WrongError
    return _text(value)


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list):
        raise _WrongError
    return [_text(item) for item in value]


def _modules(value: Any) -> list[str]:
    names = _texts(value)
    if not names or not all(part.isidentifier() for name in names for part in name.split(".")):
        raise _WrongError
    return names


def _fork(value: Any) -> str:
    if value not in ("auto", "always", "never"):
        raise _WrongError
    return str(value)


def _function(value: Any) -> str:
    module, colon, name = _text(value).partition(":")
    if not colon or not name.isidentifier() or not all(map(str.isidentifier, module.split("."))):
        raise _WrongError
    return str(value)


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise _WrongError
    return value


def _count(value: Any) -> int:
    if type(value) is not int or not 1 <= value <= 1_000_000:
        raise _WrongError
    return value


def _count_or_none(value: Any) -> int | None:
    return None if value == _NONE else _count(value)


def _priority(value: Any) -> int:
    if type(value) is not int or not -_HIGHEST <= value <= _HIGHEST:
        raise _WrongError
    return value


def _seconds(value: Any) -> float:
    if isinstance(value, str):
        value = _duration(value)
    if type(value) not in (int, float) or not 0 <= value <= _LONGEST:  # NaN fails this too
        raise _WrongError
    return float(value)


def _duration(text: str) -> float:
    """``10min``, ``1.5 h``, ``90s``: one number and one unit."""
    return _measure(text, _UNITS)


def _measure(text: str, units: Mapping[str, float]) -> float:
    number = text.rstrip(_LETTERS)
    unit = text[len(number) :]
    digits = number.strip()
    if unit not in units or not digits.isascii() or not digits.replace(".", "", 1).isdigit():
        raise _WrongError
    return float(digits) * units[unit]


def size_text(count: int) -> str:
    """Bytes as this file has them, never rounded up: ``999B``, ``48MiB``, ``1.5GiB``."""
    unit = next((each for each in reversed(_SIZES) if count >= _SIZES[each]), "B")
    tenths = count * 10 // _SIZES[unit]
    return f"{tenths / 10}{unit}" if tenths < 100 and tenths % 10 else f"{tenths // 10}{unit}"


def _limit(value: Any) -> float | None:
    return None if value == _NONE else _seconds(value)


def _memory(value: Any) -> int | None:
    if value == _NONE:
        return None
    if isinstance(value, str):
        value = round(_measure(value, _SIZES))
    if type(value) is not int or not 0 <= value <= _LARGEST:
        raise _WrongError
    return value


def _log_size(value: Any) -> int | None:
    size = _memory(value)
    if size is not None and size < _SMALLEST_LOG:
        raise _WrongError
    return size


def _memory_max(value: Any) -> int | None:
    size = _memory(value)
    if size is not None and size < _LEAST_MEMORY:
        raise _WrongError
    return size


def _pids_max(value: Any) -> int | None:
    if value == _NONE:
        return None
    if _count(value) < _LEAST_PIDS:
        raise _WrongError
    return int(value)


def _command(value: Any) -> list[str]:
    """The words to run; a text is a line for the shell."""
    if isinstance(value, str):
        return ["/bin/sh", "-c", _text(value)]
    if not isinstance(value, list) or not value:
        raise _WrongError
    if not all(isinstance(word, str) and "\0" not in word for word in value):
        raise _WrongError
    return [_text(value[0]), *value[1:]]


_NONE = "none"
_UNSAID = object()  # unlike "none": what [queues.default] says
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_PATH = 'an absolute path, such as "/srv/app/current"'
_NAMES = "a list of group names"
_NUMBER = "a whole number from 1 to 1000000"
_TIME = 'a number of seconds, or a text such as "90s", "10min" or "2h"'
_SIZE = 'a number of bytes, a text such as "256MiB" or "1GiB", or "none"'
_COMMAND = 'a list of words, such as ["bin/migrate", "--expand"], or a line for /bin/sh'

RULES: dict[str, dict[str, _Rule]] = {
    "app": {
        "release": _Rule(_absolute_path, _PATH, required=True),
        "modules": _Rule(
            _modules, 'a list of at least one module name, such as ["app.tasks"]', required=True
        ),
        "python": _Rule(_text, "the path of a Python, absolute or relative to the release"),
        "fork": _Rule(_fork, '"auto", "always" or "never"', "auto"),
        "tasks_per_worker": _Rule(_count, _NUMBER, 100),
        "max_revisions": _Rule(_count, _NUMBER, 16),
        "probe": _Rule(_function, 'a function of the app, such as "app.health:check"'),
        "memory_reserve": _Rule(_memory, _SIZE, 64 << 20),
        "open_queues": _Rule(_flag, "true or false", False),
        "max_workers": _Rule(_count, _NUMBER),
        "keep_connections": _Rule(_flag, "true or false", False),
    },
    "daemon": {
        "orphan_grace": _Rule(_seconds, _TIME, 600.0),
        "stop_timeout": _Rule(_seconds, _TIME, 60.0),
        "cancel_grace": _Rule(_seconds, _TIME, 30.0),
        "drain_limit": _Rule(_limit, f'{_TIME}, or "none"'),
        "prove_timeout": _Rule(_seconds, _TIME, 60.0),
    },
    "access": {
        "admin_groups": _Rule(_texts, _NAMES, ()),
        "submit_groups": _Rule(_texts, _NAMES, ()),
        "tasks_per_user": _Rule(_count_or_none, f'{_NUMBER}, or "none"', 100_000),
        "bytes_per_user": _Rule(_memory, _SIZE, 256 << 20),
        "max_priority": _Rule(_priority, "a whole number from -2147483647 to 2147483647", 0),
        "disk_reserve": _Rule(_memory, _SIZE, 256 << 20),
    },
    "hooks": {
        "before": _Rule(_command, _COMMAND),
        "after_drain": _Rule(_command, _COMMAND),
        "timeout": _Rule(_seconds, _TIME, 300.0),
    },
    "logs": {
        "max_size": _Rule(_log_size, f"{_SIZE}, of at least 64KiB", 64 << 20),
    },
}
"""Every section and key but ``[queues.NAME]``, whose names are the user's."""

_QUEUE_RULES = {
    "concurrency": _Rule(_count, _NUMBER),
    "memory_max": _Rule(_memory_max, f"{_SIZE}, of at least 16MiB", _UNSAID),
    "pids_max": _Rule(_pids_max, 'a whole number from 8 to 1000000, or "none"', _UNSAID),
}


def _section(table: dict[str, Any], name: str, source: str) -> dict[str, Any]:
    return _values(table.get(name, {}), RULES[name], name, source)


def _queues(table: Any, source: str) -> tuple[dict[str, int], dict[str, Limits]]:
    """What each queue says; what it does not say, as [queues.default] has it."""
    _need_map(table, "queues", source)
    usual: dict[str, Any] = {
        "concurrency": DEFAULT_CONCURRENCY,
        "memory_max": None,
        "pids_max": None,
    }
    usual |= _said(table.get(DEFAULT_QUEUE, {}), DEFAULT_QUEUE, source)
    found = {DEFAULT_QUEUE: usual}
    for name, section in table.items():
        if not 1 <= len(name) <= LONGEST_NAME:
            raise ConfigError(
                f"{source}: queues: a name has 1 to {LONGEST_NAME} characters, not {_shown(name)}"
            )
        found[name] = usual | _said(section, name, source)
    counts = {name: each["concurrency"] for name, each in found.items()}
    limits = {name: Limits(each["memory_max"], each["pids_max"]) for name, each in found.items()}
    return counts, limits


def _said(section: Any, name: str, source: str) -> dict[str, Any]:
    values = _values(section, _QUEUE_RULES, f"queues.{name}", source)
    return {key: value for key, value in values.items() if key in section}


def _values(section: Any, rules: dict[str, _Rule], name: str, source: str) -> dict[str, Any]:
    _need_map(section, name, source)
    _known(section, list(rules), source, "key", f"{name}.")
    return {key: _value(section, key, rule, name, source) for key, rule in rules.items()}


def _value(section: dict[str, Any], key: str, rule: _Rule, name: str, source: str) -> Any:
    if key not in section:
        if rule.required:
            raise ConfigError(f"{source}: {name}.{key} is missing: expected {rule.expected}")
        return list(rule.default) if isinstance(rule.default, tuple) else rule.default
    try:
        return rule.check(section[key])
    except _WrongError:
        _fail(f"{name}.{key}", rule.expected, section[key], source)


def _need_map(value: Any, name: str, source: str) -> None:
    if not isinstance(value, dict):
        _fail(name, f"a section [{name}]", value, source)


def _fail(key: str, expected: str, found: Any, source: str) -> NoReturn:
    raise ConfigError(f"{source}: {key}: expected {expected}, found {_shown(found)}")


def _shown(value: Any) -> str:
    """The value as the file has it, cut to a length that fits in a line."""
    words = {True: "true", False: "false"}
    text = words[value] if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _known(
    table: dict[str, Any], allowed: list[str], source: str, kind: str, prefix: str = ""
) -> None:
    for name in table:
        if name not in allowed:
            raise ConfigError(f"{source}: unknown {kind} {prefix}{name}{_hint(name, allowed)}")


def _hint(name: str, allowed: list[str]) -> str:
    import difflib  # only on the way to an error

    near = difflib.get_close_matches(name, allowed, n=1)
    if near:
        return f": did you mean {near[0]}?"
    return f": known here are {', '.join(allowed)}"
