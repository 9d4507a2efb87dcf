"""Reads the names of a task's steps, loops and sleeps from its function's source.

Runs in the zygote, for the manifest: saved state goes by these names, so a deploy warns when they
change and the task's version does not. The source is not kept in memory (``linecache`` would keep
it): every worker inherits the zygote's memory.
"""

from __future__ import annotations

import ast
import inspect
import tokenize
from collections.abc import Callable
from typing import Any

_WHERE = {"step": 0, "each": 0, "sleep": 1}
"""The methods of the context that save under a name, and which argument that is."""


def names_in(fn: Callable[..., Any]) -> list[str] | None:
    """The names in its calls of ``ctx.step``, ``ctx.each`` and ``ctx.sleep``, sorted.

    None if they are not known: the source cannot be read, or a name is computed. Names that other
    functions use on its behalf are not found.
    """
    source = _source(inspect.unwrap(fn))
    if source is None:
        return None
    found = set()
    for node in ast.walk(source):
        if isinstance(node, ast.Call) and (given := _name_given(node)) is not None:
            if not isinstance(given, ast.Constant):
                return None
            if isinstance(given.value, str):
                found.add(given.value)
    return sorted(found)


def _name_given(call: ast.Call) -> ast.expr | None:
    """The argument that is the name in a call that saves under a name; None for other calls."""
    match call.func:
        case ast.Attribute(ast.Name("ctx"), method) if method in _WHERE:
            for number, argument in enumerate(call.args[: _WHERE[method] + 1]):
                if isinstance(argument, ast.Starred) or number == _WHERE[method]:
                    return argument
            named = [each.value for each in call.keywords if each.arg in ("name", None)]
            return named[0] if named else None  # arg is None: **something, which may hold it
    return None


def _source(fn: Callable[..., Any]) -> ast.AST | None:
    """The definition of ``fn`` in its file; None if it is not found there."""
    code = getattr(fn, "__code__", None)
    if code is None:
        return None
    try:
        with tokenize.open(code.co_filename) as file:
            lines = file.readlines()[code.co_firstlineno - 1 :]
        text = "".join(inspect.getblock(lines))
        # an indented one must stand in something; dedenting would change its strings
        body = ast.parse(f"if True:\n{text}" if text[:1].isspace() else text).body
    except (OSError, ValueError, SyntaxError, tokenize.TokenError):
        return None
    found = body[0].body if body and isinstance(body[0], ast.If) else body
    for node in found[:1]:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == code.co_name:
            return node
    return None
