"""Checks of the functions that an app passes to ``@task`` and ``@fn.migrate``; their source place.

Used wherever an app's modules are imported.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import Any


def check(fn: Any) -> None:
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


def place(fn: Callable[..., Any]) -> str:
    """Where ``fn`` is defined: file and line, or its full name if it was not written in Python."""
    code = getattr(inspect.unwrap(fn), "__code__", None)
    if code is None:
        return f"{getattr(fn, '__module__', '?')}.{getattr(fn, '__qualname__', repr(fn))}"
    return f"{os.path.abspath(code.co_filename)}:{code.co_firstlineno}"
