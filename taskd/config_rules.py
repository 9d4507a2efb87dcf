"""The format of ``taskd.toml``: every key it may have, and the check of each value.

Used by ``config`` alone. ``RULES`` has, for each section and key, what reads and checks its value,
the words for what is expected, and the default. An unknown key or section is an error, and so is a
value of another type: a misspelt key must not pass for a default.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from math import inf, isfinite
from typing import Any, NoReturn

from taskd.errors import ConfigError
from taskd.model.duration import LONGEST, SHORTEST, measure
from taskd.model.schedule import KEYS
from taskd.record import Record

DEFAULT_QUEUE = "default"
DEFAULT_CONCURRENCY = 8
LONGEST_NAME = 200  # of a queue, as in a submission

SIZES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}

_HIGHEST = 2**31 - 1  # priority, as in a submission


class _WrongError(Exception):
    """The value does not fit its rule; the rule's text says what was expected, unless this error
    has a text of its own."""


class Rule(Record):
    """``fits``: whether a value is allowed, after ``read`` has converted it. ``least``, ``most``:
    the bounds of a number. ``or_none``: the text "none" is allowed, for None. ``is_new``: taskd
    0.2 does not know the key, and refuses a file that has it."""

    fits: Callable[[Any], bool]
    expected: str
    default: Any = None
    read: Callable[[Any], Any] | None = None
    required: bool = False
    least: float | None = None
    most: float | None = None
    or_none: bool = False
    is_new: bool = False

    def value(self, found: Any) -> Any:
        """Raises _WrongError."""
        if self.or_none and found == "none":
            return None
        value = found if self.read is None else self.read(found)
        if (
            not self.fits(value)
            or (self.least is not None and not value >= self.least)  # NaN fails this too
            or (self.most is not None and value > self.most)
        ):
            raise _WrongError
        return value


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != "" and "\0" not in value


def _is_absolute_path(value: Any) -> bool:
    return _is_text(value) and os.path.isabs(value)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _are_modules(value: Any) -> bool:
    return value != [] and _are_texts(value) and all(map(_is_dotted_name, value))


def _is_function(value: Any) -> bool:
    module, _, name = value.partition(":") if _is_text(value) else ("", "", "")
    return name.isidentifier() and _is_dotted_name(module)


def _is_dotted_name(text: str) -> bool:
    return all(map(str.isidentifier, text.split(".")))


def _variables(value: Any) -> Any:
    """A table of environment variables. No error shows a value: it may be a secret."""
    if not isinstance(value, dict):
        raise _WrongError('expected a table of texts by variable, such as { LANG = "C.UTF-8" }')
    for name, text in value.items():
        if (why := why_no_variable(name)) is not None:
            raise _WrongError(why)
        if not isinstance(text, str) or "\0" in text:
            raise _WrongError(f"{name} must be a text, in quotes")
    return value


_OURS = ("TASKD_", "LISTEN_", "WATCHDOG_", "NOTIFY_SOCKET")


def why_no_variable(name: str) -> str | None:
    """Why the app cannot set an environment variable of that name; None: it can."""
    if not (name.isascii() and name.isidentifier()):
        shown = name if name.isprintable() and len(name) <= 60 else "what stands there"
        return f"{shown} is no variable's name: letters, digits and _, no digit first"
    if name.startswith(_OURS):
        return f"{name} is taskd's own: its tasks and programs find what taskd says in it"
    return None


def _is_fork(value: Any) -> bool:
    return value in ("auto", "always", "never")


def _is_warn_or_refuse(value: Any) -> bool:
    return value in ("warn", "refuse")


def _is_flag(value: Any) -> bool:
    return type(value) is bool


def _is_whole(value: Any) -> bool:
    return type(value) is int


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _seconds(value: Any) -> Any:
    """A number, or a text with one number and one unit: ``10min``, ``1.5 h``, ``90s``."""
    if isinstance(value, str):
        return measure(value)
    return float(value) if type(value) is int else value


def _age(value: Any) -> Any:
    """As ``_seconds``; "forever" is infinity."""
    return inf if value == "forever" else _seconds(value)


def _size(value: Any) -> Any:
    """A number, or a text with one number and one unit: ``64MiB``, ``1.5 GiB``."""
    return round(measure(value, SIZES)) if isinstance(value, str) else value


def _is_command(value: Any) -> bool:
    is_list = isinstance(value, list) and all(isinstance(word, str) for word in value)
    return is_list and _is_text(next(iter(value), "")) and "\0" not in "".join(value)


def _command(value: Any) -> Any:
    """The words to run; a text is a line for the shell."""
    return ["/bin/sh", "-c", value] if _is_text(value) else value


_NAMES = Rule(_are_texts, "a list of group names", default=())
_FLAG = Rule(_is_flag, "true or false", default=False)
_COUNT = Rule(_is_whole, "a whole number from 1 to 1000000", least=1, most=1_000_000)
_PRIORITY = Rule(
    _is_whole, f"a whole number from {-_HIGHEST} to {_HIGHEST}", 0, least=-_HIGHEST, most=_HIGHEST
)
_TIME = Rule(
    _is_number,
    'a number of seconds, or a text such as "90s", "10min" or "2h"',
    read=_seconds,
    least=0,
    most=10 * 365 * 86400.0,
)
_BYTES = Rule(
    _is_whole,
    'a number of bytes, a text such as "256MiB" or "1GiB", or "none"',
    read=_size,
    least=0,
    most=1 << 60,
    or_none=True,
)
_COMMAND = Rule(
    _is_command,
    'a list of words, such as ["bin/migrate", "--expand"], or a line for /bin/sh',
    read=_command,
)

_AGE = Rule(
    _is_number,
    'a number of seconds (1 at least), a text such as "12h" or "30d", or "forever"',
    read=_age,
    least=1,
    is_new=True,
)

_LIMIT = Rule(
    _is_number,
    'a number of seconds above 0, a text such as "90s", "10min" or "2h", or "none"',
    read=_seconds,
    least=SHORTEST,
    most=LONGEST,
    or_none=True,
    is_new=True,
)

RULES: dict[str, dict[str, Rule]] = {
    "app": {
        "release": Rule(
            _is_absolute_path, 'an absolute path, such as "/srv/app/current"', required=True
        ),
        "modules": Rule(
            _are_modules, 'a list of at least one module name, such as ["app.tasks"]', required=True
        ),
        "python": Rule(_is_text, "the path of a Python, absolute or relative to the release"),
        "fork": Rule(_is_fork, '"auto", "always" or "never"', "auto"),
        "tasks_per_worker": _COUNT._replace(default=100),
        "max_revisions": _COUNT._replace(default=16),
        "probe": Rule(_is_function, 'a function of the app, such as "app.health:check"'),
        "memory_reserve": _BYTES._replace(default=64 << 20),
        "open_queues": _FLAG,
        "max_workers": _COUNT,
        "keep_connections": _FLAG,
        "env": Rule(lambda _: True, "a table", read=_variables, is_new=True),
        "env_file": Rule(
            _is_text, "the path of a file, absolute or relative to the release", is_new=True
        ),
        "setup": Rule(_is_function, 'a function of the app, such as "app.boot:setup"', is_new=True),
        "connections_at_import": Rule(
            _is_warn_or_refuse, '"warn" or "refuse"', "warn", is_new=True
        ),
    },
    "daemon": {
        "orphan_grace": _TIME._replace(default=600.0),
        "stop_timeout": _TIME._replace(default=60.0),
        "cancel_grace": _TIME._replace(default=30.0),
        "drain_limit": _TIME._replace(expected=f'{_TIME.expected}, or "none"', or_none=True),
        "prove_timeout": _TIME._replace(default=60.0),
        "timeout_grace": _TIME._replace(default=30.0, is_new=True),
    },
    "access": {
        "admin_groups": _NAMES,
        "submit_groups": _NAMES,
        "tasks_per_user": _COUNT._replace(
            expected=f'{_COUNT.expected}, or "none"', default=100_000, or_none=True
        ),
        "bytes_per_user": _BYTES._replace(default=256 << 20),
        "max_priority": _PRIORITY,
        "disk_reserve": _BYTES._replace(default=256 << 20),
    },
    "hooks": {
        "before": _COMMAND,
        "after_drain": _COMMAND,
        "timeout": _TIME._replace(default=300.0),
    },
    "logs": {
        "max_size": _BYTES._replace(
            expected=f"{_BYTES.expected}, of at least 64KiB", default=64 << 20, least=64 << 10
        ),
    },
    "retention": {
        "succeeded": _AGE._replace(default=7 * 86400.0),
        "failed": _AGE._replace(default=30 * 86400.0),
        "cancelled": _AGE._replace(default=30 * 86400.0),
    },
}
"""Every section and key but ``[queues.NAME]``, whose names are the user's."""

_QUEUE_RULES = {
    "concurrency": _COUNT._replace(default=DEFAULT_CONCURRENCY),
    # A worker without a task needs nearly 16MiB, and has a few threads itself.
    "memory_max": _BYTES._replace(expected=f"{_BYTES.expected}, of at least 16MiB", least=16 << 20),
    "pids_max": _COUNT._replace(
        expected='a whole number from 8 to 1000000, or "none"', least=8, or_none=True
    ),
    "timeout": _LIMIT,
    "silent_after": _LIMIT,
    "rate": Rule(_is_text, 'a text such as "100/min"', is_new=True),
    "burst": _COUNT._replace(is_new=True),
    "keep_succeeded": _AGE,
    "keep_failed": _AGE,
    "keep_cancelled": _AGE,
}


def read(table: dict[str, Any], source: str) -> dict[str, dict[str, Any]]:
    """The values of each section of a parsed file but ``queues``, defaults filled in. ``source``
    names the file in errors. Raises ConfigError."""
    _check_names(table, [*RULES, "queues", "schedules", "limits", "tasks"], source, "section")
    return {
        name: _read_section(table.get(name, {}), rules, name, source)
        for name, rules in RULES.items()
    }


def read_queues(table: dict[str, Any], source: str) -> dict[str, dict[str, Any]]:
    """The values of each ``[queues.NAME]``; a key that one leaves out is as in [queues.default].
    The default queue is always there. Raises ConfigError."""
    sections = table.get("queues", {})
    _check_section(sections, "queues", source)
    found: dict[str, dict[str, Any]] = {}
    for name, section in ({DEFAULT_QUEUE: {}} | sections).items():
        if not 1 <= len(name) <= LONGEST_NAME:
            raise ConfigError(
                f"{source}: queues: a name has 1 to {LONGEST_NAME} characters, not {_shown(name)}"
            )
        values = _read_section(section, _QUEUE_RULES, f"queues.{name}", source)
        found[name] = found.get(DEFAULT_QUEUE, values) | {key: values[key] for key in section}
    return found


def read_schedules(table: dict[str, Any], source: str) -> dict[str, dict[str, Any]] | None:
    """Each ``[schedules.NAME]`` as it stands there; None: there is none. What it says is checked
    when it is deployed, against the release. Raises ConfigError."""
    sections = table.get("schedules", {})
    _check_section(sections, "schedules", source)
    for name, section in sections.items():
        if not 1 <= len(name) <= LONGEST_NAME:
            raise ConfigError(f"{source}: schedules: a name has 1 to {LONGEST_NAME} characters")
        _check_section(section, f"schedules.{name}", source)
        _check_names(section, ["task", "args", *KEYS], source, "key", f"schedules.{name}.")
        if not _is_text(section.get("task")):
            _fail(f"schedules.{name}.task", "the name of a task", section.get("task"), source)
        if not _is_plain(section):
            raise ConfigError(
                f"{source}: schedules.{name}: write dates and times as texts, and no nan or inf"
            )
    return sections or None


def _is_plain(value: Any) -> bool:
    """Whether JSON can keep it: ``proved`` does."""
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return isinstance(value, (str, int)) or (isinstance(value, float) and isfinite(value))


def new_keys(table: dict[str, Any]) -> list[str]:
    """The keys of a parsed file that taskd 0.2 does not know, as ``app.env``."""
    sections = [(name, rules, table.get(name, {})) for name, rules in RULES.items()]
    sections += [(f"queues.{n}", _QUEUE_RULES, s) for n, s in table.get("queues", {}).items()]
    found = [f"{name}.{key}" for name, rules, s in sections for key in s if rules[key].is_new]
    tables = ("schedules", "limits", "tasks")
    return found + [f"[{each}.{name}]" for each in tables for name in table.get(each, {})]


def _read_section(section: Any, rules: dict[str, Rule], name: str, source: str) -> dict[str, Any]:
    _check_section(section, name, source)
    _check_names(section, list(rules), source, "key", f"{name}.")
    values = {}
    for key, rule in rules.items():
        if key in section:
            try:
                values[key] = rule.value(section[key])
            except (_WrongError, ValueError) as error:
                if isinstance(error, _WrongError) and error.args:
                    raise ConfigError(f"{source}: {name}.{key}: {error}") from None
                _fail(f"{name}.{key}", rule.expected, section[key], source)
        elif rule.required:
            raise ConfigError(f"{source}: {name}.{key} is missing: expected {rule.expected}")
        else:
            values[key] = list(rule.default) if isinstance(rule.default, tuple) else rule.default
    return values


def _check_section(value: Any, name: str, source: str) -> None:
    if not isinstance(value, dict):
        _fail(name, f"a section [{name}]", value, source)


def _check_names(
    table: dict[str, Any], allowed: list[str], source: str, kind: str, prefix: str = ""
) -> None:
    for name in table:
        if name not in allowed:
            import difflib  # slow, and only on the way to an error

            near = difflib.get_close_matches(name, allowed, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known here are {', '.join(allowed)}"
            raise ConfigError(f"{source}: unknown {kind} {prefix}{name}: {hint}")


def _fail(key: str, expected: str, found: Any, source: str) -> NoReturn:
    raise ConfigError(f"{source}: {key}: expected {expected}, found {_shown(found)}")


def _shown(value: Any) -> str:
    """The value as the file has it, cut to a length that fits into a line."""
    words = {True: "true", False: "false"}
    text = words[value] if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
