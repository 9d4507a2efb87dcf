"""Checks of what an app's code passes to ``@task``, ``@fn.migrate`` and its context; errors say
what to pass instead. Also a function's signature and its place in the source.

Used wherever an app's modules are imported, in workers, and in tests.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from typing import Any

from taskd.api.retry_rules import checked_retries
from taskd.errors import BadArguments
from taskd.model import duration

LARGEST = 2**63 - 1
"""The largest count that a record can carry."""

LONGEST_NAME = 200


def check_function(name: str, fn: Any) -> None:
    """Raise TypeError unless a step can call ``fn``."""
    if not callable(fn):
        raise TypeError(
            f"step '{name}' needs a function, not {type(fn).__name__}: pass the function and its "
            f"arguments apart, as in ctx.step('{name}', count_rows, path)"
        )


def is_async(value: Any) -> bool:
    """Whether ``value``, which user code returned, has to be awaited. If so it is closed, else
    Python would warn of a coroutine that was never awaited."""
    if not inspect.isawaitable(value):
        return False
    if hasattr(value, "close"):
        value.close()
    return True


def check_count(what: str, value: Any) -> None:
    """Raise TypeError unless ``value`` is None or a count."""
    if value is not None and (type(value) is not int or not 0 <= value <= LARGEST):
        raise TypeError(f"{what} must be a whole number from 0 to {LARGEST}, or None: {value!r}")


def check_task(fn: Any) -> None:
    """Raise TypeError unless ``fn`` can be a task's function."""
    if not inspect.isfunction(fn):
        raise TypeError(
            f"@task needs a plain function, not {type(fn).__name__}: put it below other decorators "
            "of the function's own, and outside of classes"
        )
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise TypeError(
            f"@task: {fn.__qualname__} yields, so that calling it would run nothing; a task's "
            "function returns its result, and a generator is what ctx.each takes"
        )


def check_migration(fn: Any) -> None:
    """Raise TypeError unless ``fn`` can be a migration: a callable that has finished when it
    returns."""
    if not callable(fn):
        raise TypeError(f"a migration is a function, not {type(fn).__name__}")
    if inspect.iscoroutinefunction(fn) or inspect.isgeneratorfunction(fn):
        raise TypeError(
            f"the migration {getattr(fn, '__qualname__', fn)!r} must be a plain function: one that "
            "is async or yields would do nothing when it is called"
        )


def signature(fn: Callable[..., Any], name: str) -> tuple[inspect.Signature, bool]:
    """The signature without ``ctx``, and whether ``ctx`` is the first parameter.

    Arguments are kept by name: raises TypeError for a parameter that cannot be passed by name.
    """
    whole = inspect.signature(fn)
    parameters = list(whole.parameters.values())
    for each in parameters:
        if each.kind is each.VAR_POSITIONAL:
            raise TypeError(
                f"task '{name}': *{each.name} cannot be kept, since arguments are kept by name: "
                "take a list as one argument instead"
            )
        if each.kind is each.POSITIONAL_ONLY:
            raise TypeError(
                f"task '{name}': '{each.name}' can only be given by position, and arguments are "
                "kept by name: remove the '/' from the parameters"
            )
    takes_context = bool(parameters) and parameters[0].name == "ctx"
    if takes_context and parameters[0].kind is not inspect.Parameter.POSITIONAL_OR_KEYWORD:
        raise TypeError(f"task '{name}': ctx must be an ordinary first parameter")
    return whole.replace(parameters=parameters[takes_context:]), takes_context


def by_name(
    task: str, signature: inspect.Signature, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """The arguments of a call by their names. Raises BadArguments for too many, and for one that
    is given twice."""
    positional = [
        p.name for p in signature.parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD
    ]
    if len(args) > len(positional):
        raise BadArguments(
            f"task '{task}': {len(args)} arguments without a name, and it takes {len(positional)}"
        )
    found = dict(zip(positional, args, strict=False))
    if twice := sorted(found.keys() & kwargs.keys()):
        raise BadArguments(f"task '{task}': argument '{twice[0]}' is given twice")
    return found | dict(kwargs)


def how(said: dict[str, Any]) -> dict[str, Any]:
    """What ``Task.using`` was given, checked. Raises TypeError and ValueError."""
    if said["retries"] is not None:
        checked_retries(said["retries"])
    return said | {
        name: duration.limit(name, said[name])
        for name in ("expires", "timeout", "key_for", "at_most")
        if said[name] is not None
    }


def migration_version(name: str, version: Any, own: int) -> None:
    """Raises ValueError unless a migration of the task can take state of ``version``."""
    checked_count("version", version, 1)
    if version >= own:
        raise ValueError(
            f"task '{name}' is version {own}: a migration takes state of an earlier version to the "
            f"next one, and {version} is not earlier"
        )


def place(fn: Callable[..., Any]) -> str:
    """Where ``fn`` is defined: file and line, or its full name if it was not written in Python."""
    code = getattr(inspect.unwrap(fn), "__code__", None)
    if code is None:
        return f"{getattr(fn, '__module__', '?')}.{getattr(fn, '__qualname__', repr(fn))}"
    return f"{os.path.abspath(code.co_filename)}:{code.co_firstlineno}"


def checked_name(what: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{what} must be a str, not {type(value).__name__}")
    if not value or len(value) > LONGEST_NAME or not value.isprintable() or " " in value:
        raise ValueError(
            f"{what} {value[:LONGEST_NAME]!r}: it must be 1 to {LONGEST_NAME} printable characters "
            "without spaces"
        )
    return value


def checked_limit(what: str, value: Any) -> float | None:
    """A time limit in seconds; None: none."""
    return None if value is None else duration.limit(what, value)


def checked_count(what: str, value: Any, least: int) -> int:
    if type(value) is not int:
        raise TypeError(f"{what} must be a whole number, not {value!r}")
    if value < least:
        raise ValueError(f"{what} must be {least} or more, not {value}")
    return value


def takes(signature: inspect.Signature) -> dict[str, Any]:
    """The fields of a task's entry in the manifest from which ``model.binding`` decides."""
    parameters = signature.parameters.values()
    named = [p for p in parameters if p.kind is not p.VAR_KEYWORD]
    return {
        "params": [[p.name, p.default is p.empty] for p in named],
        "any": len(named) < len(parameters),
    }
